#!/usr/bin/python
"""Documents the action of the same name, plugins/action/host_files.py, which does all of its work."""

DOCUMENTATION = r"""
module: host_files
author: The data platform team
short_description: Have files on the host as templates say, in one look
description:
  - Renders templates, compares all of them with the host in one round trip, and writes only what differs.
    C(ansible.builtin.template) asks the host at least twice for each file, so a list of twenty takes many
    seconds even when nothing has changed.
  - The comparison is of text, owner, group and mode. What differs is written by C(ansible.builtin.copy), so
    C(validate), check mode, diff mode and an atomic replacement are as there.
  - Directories come first, then files, each in the order of its list. The first failure ends the task.
    RV(written) says what is done by then, and a second run goes on from there.
  - The task is changed if anything was written, so C(notify) works as with C(ansible.builtin.template).
  - Check mode works on a bare host. A file in a directory that does not exist yet is reported as changed, and
    is not validated.
options:
  directories:
    description: Directories to have. Parents that are missing are made, too, with the same owner and mode.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The path on the host., type: str, required: true}
      owner: {description: A name or a number. The default is the option O(owner)., type: str}
      group: {description: A name or a number. The default is the option O(group)., type: str}
      mode: {description: "The mode in four octal digits, in quotes.", type: str}
  files:
    description: Files to have.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The path on the host., type: str, required: true}
      src:
        description:
          - A template on the control node. Without this and C(content) it is the one of the same path in
            O(templates).
        type: str
      content: {description: "The text itself, instead of a template.", type: str}
      owner: {description: A name or a number. The default is the option O(owner)., type: str}
      group: {description: A name or a number. The default is the option O(group)., type: str}
      mode: {description: "The mode in four octal digits, in quotes.", type: str}
      validate:
        description: A command that has to succeed before the file is replaced; C(%s) is the new file's path.
        type: str
      secret:
        description: Never show the text, neither in a diff nor in what a failed C(validate) says.
        type: bool
        default: false
  templates:
    description:
      - A directory of the control node that has the host's files as templates. The template of
        C(etc/example.conf) or C(/etc/example.conf) there is C(etc/example.conf.j2).
    type: str
    default: ""
  root:
    description: The directory on the host below which paths are that are not absolute.
    type: str
    default: /
  owner:
    description: Who owns what says nothing of its own.
    type: str
    default: root
  group:
    description: The group of what says nothing of its own.
    type: str
    default: root
  look_at:
    description: Further paths to look at in the same round trip. They are never changed.
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Render the settings and the unit
  host_files:
    templates: /project/templates
    directories:
      - {path: /etc/example, mode: "0700"}
    files:
      - {path: /etc/example/password.env, mode: "0600", secret: true}
      - {path: /etc/systemd/system/example.service, mode: "0644", validate: systemd-analyze verify %s}
  notify: Restart example

- name: Write a token
  host_files:
    files:
      - {path: /etc/example/token, content: "{{ token }}", mode: "0400", secret: true}
  no_log: true # The arguments have the token in them.
"""

RETURN = r"""
written:
  description: The paths that were changed, or would be in check mode.
  returned: always
  type: list
  elements: str
found:
  description: Which of all given paths were on the host before.
  returned: always
  type: list
  elements: str
checksums:
  description: The SHA-1 checksum of each path of O(look_at) that is there, "" for a directory.
  returned: always
  type: dict
modes:
  description: The mode of each path of O(look_at) that is there, in four octal digits.
  returned: always
  type: dict
fingerprint:
  description: The SHA-256 of all texts of O(files) in their order. It differs when one of them does.
  returned: always
  type: str
path:
  description: The path at which it failed.
  returned: failure
  type: str
"""
