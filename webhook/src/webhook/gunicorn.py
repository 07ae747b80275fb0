"""Settings of gunicorn: gunicorn --config python:webhook.gunicorn 'webhook.app:create_app()'."""

from webhook.settings import report_socket_from_environment, workers_from_environment

_worker_hosts = workers_from_environment()

bind = ["0.0.0.0:8080"]  # inside the container; HAProxy is the only one that reaches it
if (_reports := report_socket_from_environment()) is not None:
    # For the worker gateway. No other container has the socket's volume: on a port, whoever shares a network
    # could name itself a worker.
    bind.append(f"unix:{_reports}")
umask = 0o007  # of that socket: the gateway is in this group, and nobody else may connect
# One process, because the queue that folds many calls into one sync is in its memory.
workers = 1
worker_class = "webhook.worker.Worker"
# A worker host's report keeps a thread while it waits for news, and so may the one before it.
threads = 8 + 2 * len(_worker_hosts)
worker_tmp_dir = "/dev/shm"  # noqa: S108 - gunicorn's heartbeat file, on memory and not on an overlay
keepalive = 15
# A sync that runs may take this long to end before a restart; killed later, it leaves no half-made state.
graceful_timeout = 25
accesslog = None
