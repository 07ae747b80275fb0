"""The webhook's routes, as its blueprints have them, so that no test of odd or slow callers forgets one."""

from __future__ import annotations

import re

from flask import Flask

from webhook import calls, operations, status, worker_reports

_app = Flask("webhook")
for _module in (status, calls, operations, worker_reports):
    _app.register_blueprint(_module.blueprint)

ROUTES = sorted({re.sub(r"<[^>]*>", "{}", rule.rule) for rule in _app.url_map.iter_rules()})
"""With {} where a part is the caller's; Flask's own for files is among them."""
