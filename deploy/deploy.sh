#!/usr/bin/env bash
# Brings one commit and the file of secrets to the server, looks from outside whether it is well, and rolls back if
# it is not. .github/workflows/deploy.yml runs it; so may the owner, from any machine.
#
#   deploy/deploy.sh COMMIT
#
#   DEPLOY_HOST          the server; DEPLOY_USER (root) and DEPLOY_PORT (22)
#   DEPLOY_KNOWN_HOSTS   its host keys, as `ssh-keyscan` prints them: an unknown one is refused
#   DEPLOY_SSH_KEY       the private key; without it, the ssh agent's
#   PUBLIC_URL           where webhooks reach the server; its /healthz has to answer
#   SOPS_AGE_KEY         an age key that opens secrets.encrypted.yaml, to check it before it leaves
#
# A secret is in no argument, and in no environment but of the program that needs it. The secrets travel encrypted.
set -euo pipefail
cd "$(dirname "$0")/.."

HEALTH_ATTEMPTS=${DEPLOY_HEALTH_ATTEMPTS:-30}
HEALTH_PAUSE=${DEPLOY_HEALTH_PAUSE:-2}
FILE=${DEPLOY_SECRETS_FILE:-secrets.encrypted.yaml}
agent=
# They are ours, not our children's.
export -n DEPLOY_SSH_KEY SOPS_AGE_KEY

work=$(mktemp -d)
cleanup() {
  if [ -n "$agent" ]; then kill "$agent" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap cleanup EXIT

say() { printf '%s\n' "$*"; }
fail() {
  printf 'deploy.sh: %s\n' "$*" >&2
  exit 1
}

# require NAME…: each is set, or it is said which are not.
require() {
  local name missing=()
  for name in "$@"; do
    if [ -z "${!name:-}" ]; then missing+=("$name"); fi
  done
  if [ ${#missing[@]} -gt 0 ]; then fail "not set: ${missing[*]}"; fi
}

check_secrets() {
  say 'Checking the secrets …'
  (
    if [ -n "${SOPS_AGE_KEY:-}" ]; then export SOPS_AGE_KEY; fi
    exec node src/launch.mjs secrets check --no-test-keys --file "$FILE"
  ) || fail 'these secrets are not deployed'
}

# The key goes into an agent of our own by a pipe: it is never in a file.
start_agent() {
  if [ -z "${DEPLOY_SSH_KEY:-}" ]; then return; fi
  eval "$(ssh-agent -a "$work/agent" -s)" >/dev/null
  agent=$SSH_AGENT_PID
  printf '%s\n' "$DEPLOY_SSH_KEY" | ssh-add -q - || fail 'DEPLOY_SSH_KEY is no private key without a passphrase'
}

on_server() {
  ssh -p "${DEPLOY_PORT:-22}" -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=15 \
    -o StrictHostKeyChecking=yes -o UserKnownHostsFile="$work/known_hosts" -o GlobalKnownHostsFile=/dev/null \
    -- "${DEPLOY_USER:-root}@$DEPLOY_HOST" "$@"
}

# From outside, the way that webhooks come: DNS, certificate, Caddy, daemon.
is_healthy() {
  local attempt
  for ((attempt = 1; attempt <= HEALTH_ATTEMPTS; attempt++)); do
    if curl -fsS -o /dev/null --max-time 10 "${PUBLIC_URL%/}/healthz" 2>"$work/curl"; then return; fi
    sleep "$HEALTH_PAUSE"
  done
  say "Not healthy: $(tail -n 1 "$work/curl")"
  return 1
}

main() {
  local commit=${1:-}
  [[ $commit =~ ^[0-9a-f]{40}$ ]] || fail 'usage: deploy/deploy.sh COMMIT (all 40 digits)'
  require DEPLOY_HOST DEPLOY_KNOWN_HOSTS PUBLIC_URL
  check_secrets
  printf '%s\n' "$DEPLOY_KNOWN_HOSTS" >"$work/known_hosts"
  start_agent

  say "Deploying $commit; $(on_server release </dev/null) runs …"
  on_server deploy "$commit" <"$FILE" || fail 'the server did not take it; what ran before runs'
  say 'Looking from outside …'
  if is_healthy; then
    say "$commit is live and healthy."
    return
  fi
  say 'Rolling back …'
  on_server rollback </dev/null || fail 'ROLLING BACK FAILED: look at the server'
  if is_healthy; then fail "$commit was not healthy; what ran before runs again"; fi
  fail "$commit was not healthy, nor is what ran before: look at the server"
}

main "$@"
