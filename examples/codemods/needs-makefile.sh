#!/bin/sh
# Works only on codebases with a Makefile, and says so of others: shows how a codemod reports a failure of its own kind.
set -eu
if [ ! -e Makefile ]; then
    if [ -n "${SVP_RESULT:-}" ]; then
        echo '{"code": "no-makefile", "description": "There is no Makefile to work on", "transient": false}' >"$SVP_RESULT"
    fi
    exit 1
fi
grep -q '^\.PHONY' Makefile || printf '.PHONY: all\n' >>Makefile
