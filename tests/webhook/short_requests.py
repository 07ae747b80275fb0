"""gunicorn as it serves the webhook, but for a limit on the time of a request that a test can wait for."""

from gunicorn.app.wsgiapp import run

from webhook import worker

if __name__ == "__main__":
    worker.REQUEST_SECONDS = 1
    run()
