#!/usr/bin/env bash
# The server's side of a deployment: all that the key of GitHub Actions may do here. It stands as the forced command
# in root's authorized_keys, so that this key opens no shell:
#
#   restrict,command="/opt/millrace/current/deploy/on-server.sh" ssh-ed25519 AAAA… github-actions
#
# What was asked for is in SSH_ORIGINAL_COMMAND:
#
#   deploy COMMIT   standard input: secrets.encrypted.yaml. Takes the secrets over if the server's own key opens
#                   them, then goes to that release; what fails puts the old secrets back
#   rollback        back to the release and the secrets before that deployment
#   release         prints which release runs
#
# A connection that is lost does not break it off: what it says then is for nobody.
set -euo pipefail
trap '' PIPE HUP

ETC=${MILLRACE_ETC:-/etc/millrace}
MILLRACE=${MILLRACE_COMMAND:-/usr/local/bin/millrace}
CURRENT=${MILLRACE_CURRENT:-/opt/millrace/current}
MAX_BYTES=1000000
FILE=secrets.encrypted.yaml
# What the last deployment went from and to, in a line.
DEPLOYED=$ETC/deployed

say() { printf '%s\n' "$*" >&2 || true; }
fail() {
  say "on-server.sh: $*"
  exit 1
}

# Hands the secrets out again; what needs them is restarted with it. A role that had refused the ones before, and was
# given up by systemd, is started: a restart of what it needs leaves it down. What an operator has stopped stays so.
restart_secrets() {
  if ! command -v systemctl >/dev/null || ! systemctl cat millrace-secrets.service >/dev/null 2>&1; then return; fi
  systemctl restart millrace-secrets.service || return
  if systemctl is-active --quiet millrace.target; then systemctl start millrace.target; fi
}

# take_secrets: standard input becomes the file of secrets; the one before stays as .previous.
take_secrets() {
  local incoming
  incoming=$(mktemp -d "$ETC/.incoming-XXXXXX")
  # shellcheck disable=SC2064 # the folder of this call
  trap "rm -rf '$incoming'" EXIT
  head -c $((MAX_BYTES + 1)) >"$incoming/$FILE"
  if [ "$(wc -c <"$incoming/$FILE")" -gt "$MAX_BYTES" ]; then fail 'the file of secrets is too large'; fi
  "$MILLRACE" secrets check --no-test-keys --file "$incoming/$FILE" >&2 ||
    fail 'these secrets are not taken over; nothing was changed'
  if cmp -s "$incoming/$FILE" "$ETC/$FILE"; then
    rm -f "$ETC/$FILE.previous"
    return
  fi
  if [ -e "$ETC/$FILE" ]; then cp -p "$ETC/$FILE" "$ETC/$FILE.previous"; fi
  chmod 0600 "$incoming/$FILE"
  mv -f "$incoming/$FILE" "$ETC/$FILE"
  restart_secrets || {
    put_secrets_back
    fail 'these secrets could not be handed out; what ran before runs'
  }
}

put_secrets_back() {
  if ! [ -e "$ETC/$FILE.previous" ]; then return; fi
  say 'The secrets before are put back.'
  mv -f "$ETC/$FILE.previous" "$ETC/$FILE"
  restart_secrets || fail 'THE SECRETS BEFORE COULD NOT BE HANDED OUT: look at the server'
}

running_release() { basename "$(readlink -f "$CURRENT")"; }

deploy() {
  local from
  from=$(running_release)
  take_secrets
  # It goes back to the release before by itself when the new one is not well.
  if ! "$MILLRACE" upgrade "$1" >&2; then
    put_secrets_back
    fail "release $1 was not taken; what ran before runs"
  fi
  printf '%s %s\n' "$from" "$(running_release)" >"$DEPLOYED"
}

# To what the deployment found, which it may have left alone: a release goes back only where one was brought.
rollback() {
  local from='' to=''
  put_secrets_back
  if [ -e "$DEPLOYED" ]; then read -r from to <"$DEPLOYED"; fi
  case $(running_release) in
    "$from") say "Release $from runs already." ;;
    "$to") "$MILLRACE" rollback "$from" >&2 ;;
    *) "$MILLRACE" rollback >&2 ;;
  esac
}

main() {
  local action=${1:-} argument=${2:-}
  case $action in
    deploy)
      [[ $argument =~ ^[0-9a-f]{40}$ ]] || fail 'a release is named by its whole commit'
      deploy "$argument"
      ;;
    rollback) rollback ;;
    release) running_release ;;
    *) fail 'this key may deploy, roll back and ask for the release, nothing else' ;;
  esac
}

read -r -a words <<<"${SSH_ORIGINAL_COMMAND:-$*}"
main "${words[@]}"
