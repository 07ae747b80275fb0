"""What the team's DAGs share: secrets from 1Password (`onepassword`), alerts in Slack (`slack_operator`)."""
