"""Settings of gunicorn: gunicorn --config python:webhook.gunicorn 'webhook.app:create_app()'."""

bind = "0.0.0.0:8080"  # inside the container; HAProxy is the only one that reaches it
# One process, because the queue that folds many calls into one sync is in its memory.
workers = 1
worker_class = "webhook.worker.Worker"
threads = 8
worker_tmp_dir = "/dev/shm"  # noqa: S108 - gunicorn's heartbeat file, on memory and not on an overlay
keepalive = 15
# A sync that runs may take this long to end before a restart; killed later, it leaves no half-made state.
graceful_timeout = 25
accesslog = None
