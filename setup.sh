#!/usr/bin/env bash
# Puts Millrace on a Debian or Ubuntu server, and brings one that it put there up to date:
#   curl -fsSL https://…/setup.sh | bash
# `--help` says what can be asked of it. Everything stands in functions and the last line starts them, so that a
# download that breaks off runs nothing.
#
# It asks, brings what the release needs (packages, Node, sops), checks the release out, and leaves the rest
# (secrets, units, Caddy, start) to that release's own deploy/setup/. Each step looks at what is there and does what is
# missing: a second run changes nothing, and a run that was broken off is completed by the next one. What it made
# it writes down in /etc/millrace/installed first; what is there and not in that list is not touched.
#
# Secrets live in shell variables that are not exported, and leave them by pipes: not in an argument, a log, the
# shell's history or a file in the clear.
if [ -z "${BASH_VERSION:-}" ]; then
  echo 'setup.sh needs bash: curl -fsSL … | bash' >&2
  exit 1
fi

NODE_VERSION=24.21.0
SOPS_VERSION=3.13.3
S2_VERSION=0.43.4
OPT=/opt/millrace
ETC=/etc/millrace
DATA=/var/lib/millrace
INSTALLED=$ETC/installed
ENV_FILE=$ETC/millrace.env
SECRETS_FILE=$ETC/secrets.encrypted.yaml
LOG=/var/log/millrace-setup.log
LOCK=/run/millrace-setup.lock
S2_LITE_ENDPOINT=http://127.0.0.1:4243
CA_FILE=/etc/ssl/certs/ca-certificates.crt
MIN_FREE_MB=1000
# Of Debian 12, the oldest that the units are tried on.
MIN_SYSTEMD=252
SYSTEMD_RUNS=/run/systemd/system
SHOWN_LINES=40
LOCK_WAIT_SECONDS=600

# The variables of docs/configuration.md: what goes into millrace.env, and what is encrypted.
CONFIG_NAMES=(MAIL_DOMAIN PUBLIC_URL RESEND_BASE_URL STREAMS DATA_DIR S2_BASIN S2_ACCOUNT_ENDPOINT
  S2_BASIN_ENDPOINT TOOLS_REPO TOOLS_BRANCH TOOLS_PATH TOOLS_SSH_KNOWN_HOSTS GITHUB_API_URL DNS_SERVERS
  HOST PORT RETENTION_DAYS LOG_LEVEL)
SECRET_NAMES=(RESEND_API_KEY RESEND_SENDING_KEY RESEND_WEBHOOK_SECRET S2_ACCESS_TOKEN GITHUB_PAT
  TOOLS_SSH_KEY GIT_WEBHOOK_SECRET ADMIN_TOKEN)
STEPS=(packages node sops release s2 account resend secrets config units caddy start)

usage() {
  cat <<'HELP'
Usage: setup.sh [--dry-run] [--help]     or: curl -fsSL https://…/setup.sh | bash [-s -- --dry-run]

Puts Millrace on this Debian or Ubuntu server (as root), or brings it up to date. Asks at the terminal for what it
does not know; every question can be answered by a variable beforehand:

  MAIL_DOMAIN, PUBLIC_URL, RESEND_API_KEY     needed
  RESEND_SENDING_KEY, RESEND_WEBHOOK_SECRET   the second only where the key may not make a webhook
  STREAMS=local|s2, S2_ACCESS_TOKEN, S2_BASIN, S2_ACCOUNT_ENDPOINT, S2_BASIN_ENDPOINT
  S2_LITE=1                                   S2's own server on this machine, for STREAMS=s2
  TOOLS_REPO, TOOLS_BRANCH, TOOLS_PATH, GITHUB_PAT, ADMIN_TOKEN, TOOL_SECRET_<NAME>, RETENTION_DAYS, …
                                              as in docs/configuration.md

  MILLRACE_REPO         where Millrace comes from: a Git URL or path (default: where this file lies)
  MILLRACE_REF          a branch, tag or commit (default: the newest vX.Y.Z, else the default branch)
  MILLRACE_UNATTENDED=1 ask nothing: what is missing is listed, and nothing is changed
  MILLRACE_WAIT_DNS=1   wait until Resend has seen the DNS records
  MILLRACE_TLS=internal certificates of Caddy's own, for a name that the internet does not know
  NODE_MIRROR           in place of https://nodejs.org/dist
  SOPS_MIRROR           in place of https://github.com/getsops/sops/releases/download

--dry-run prints the steps, one a line as NAME<tab>WHAT, changes nothing and needs no root.
Remove it again with /opt/millrace/current/deploy/uninstall.sh.
HELP
}

say() { printf '%s\n' "$*"; }
log() { if [ -n "${log_is_open:-}" ]; then printf '%s %s\n' "$(date -u +%FT%TZ)" "$*" >&8; fi; }

# fail WHAT [WHAT-TO-DO…]
fail() {
  local line
  printf '\n%s\n' "$1" >&2
  log "failed: $1"
  for line in "${@:2}"; do printf '  %s\n' "$line" >&2; done
  exit 1
}

# quietly WHAT COMMAND…: quietly; a command's output is for the log, and for the eye only when it fails.
quietly() {
  local what=$1 output=$work/output
  shift
  log "run: $what"
  if "$@" >"$output" 2>&1 </dev/null; then
    cat "$output" >&8
    return
  fi
  cat "$output" >&8
  printf '\n%s did not work. It said:\n' "$what" >&2
  tail -n "$SHOWN_LINES" "$output" | sed 's/^/  | /' >&2
  fail "$what did not work." 'Mend what it names and run setup again: it goes on where this run ended.'
}

# record KIND NAME: written down before it is made, so that a run that breaks off leaves nothing unknown.
record() {
  if ! grep -qxF "$1 $2" "$INSTALLED" 2>/dev/null; then printf '%s %s\n' "$1" "$2" >>"$INSTALLED"; fi
}
is_ours() { grep -qxF "$1 $2" "$INSTALLED" 2>/dev/null; }

# What is to be restarted at the end is known on disk, so that a run that breaks off in between leaves it to the next.
mark_changed() { : >"$OPT/changed"; }
has_changed() { [ -e "$OPT/changed" ]; }

# install_file PATH [MODE]: puts standard input there unless it is there already.
install_file() {
  local path=$1 mode=${2:-0644} content=$work/content
  cat >"$content"
  record path "$path"
  if cmp -s "$content" "$path" && [ "$(stat -c %a "$path")" = "${mode#0}" ]; then return; fi
  mkdir -p "$(dirname "$path")"
  mark_changed
  install -m "$mode" "$content" "$path.new"
  mv -f "$path.new" "$path"
}

# download URL FILE
download() {
  local url=$1
  case $url in /*) url=file://$url ;; esac
  curl -fsSL --retry 3 --connect-timeout 20 -o "$2" "$url" 2>>"$work/curl"
}

has_version() { # has_version HAVE LEAST
  [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]
}

# A program that the service users may run: not in somebody's home, and not in a folder that a reboot empties.
is_shared_program() {
  local path
  path=$(readlink -f "$1") || return 1
  case $path in /root/* | /home/* | /tmp/* | /run/* | /var/tmp/*) return 1 ;; esac
  while [ "$path" != / ]; do
    case $(stat -c %A "$path") in *x) ;; *) return 1 ;; esac
    path=$(dirname "$path")
  done
}

# --- What is there, and what is not ours ---

detect_machine() {
  local version free_mb
  case $(uname -m) in
    x86_64) node_arch=x64 sops_arch=amd64 ;;
    aarch64 | arm64) node_arch=arm64 sops_arch=arm64 ;;
    *) problems+=("This processor ($(uname -m)) is not supported: x86_64 or arm64 is needed.") ;;
  esac
  command -v apt-get >/dev/null || problems+=('There is no apt-get: Debian or Ubuntu is needed.')
  if [ -d "$SYSTEMD_RUNS" ]; then
    version=$(systemctl --version | grep -oE '[0-9]+' | head -n 1 || true)
    if [ "${version:-0}" -lt "$MIN_SYSTEMD" ]; then
      problems+=("systemd ${version:-?} is too old, $MIN_SYSTEMD is needed: Debian 12, Ubuntu 24.04 or newer.")
    fi
  else
    problems+=('systemd does not run here: its units are how Millrace is started.')
  fi
  free_mb=$(df -Pm /opt 2>/dev/null | awk 'NR == 2 { print $4 }')
  if [ "${free_mb:-$MIN_FREE_MB}" -lt "$MIN_FREE_MB" ]; then
    problems+=("/opt has $free_mb MB free, and $MIN_FREE_MB are needed: free some (apt-get clean; journalctl --vacuum-size=100M).")
  fi
}

detect_strangers() {
  local path
  for path in /usr/local/bin/millrace /etc/systemd/system/{millrace*,s2-lite*}; do
    # What an owner changes by `systemctl edit`, or has linked.
    case $path in *.d | *.wants | *.requires) continue ;; esac
    if [ -e "$path" ] && ! is_ours path "$path"; then
      problems+=("$path is there, and setup did not make it: move it away.")
    fi
  done
  for path in "$OPT" "$ETC" "$DATA"; do
    if [ -n "$(ls -A "$path" 2>/dev/null)" ] && ! [ -e "$INSTALLED" ]; then
      problems+=("$path is there, and setup did not make it: move it away (data: to put it back afterwards).")
    fi
  done
  if getent passwd millrace >/dev/null && ! is_ours user millrace; then
    problems+=('There is a user millrace that setup did not make: rename it or remove it.')
  fi
}

# Who has the ports of the web, and whose Caddyfile it is. `web` is caddy, foreign-caddyfile or another program.
detect_web() {
  local taken caddyfile=/etc/caddy/Caddyfile
  web=caddy
  taken=$(ss -ltnpH '( sport = :80 or sport = :443 )' 2>/dev/null | grep -oP 'users:\(\("\K[^"]+' | sort -u | head -n 1 || true)
  if [ -n "$taken" ] && [ "$taken" != caddy ]; then
    web=$taken
  elif [ -e "$caddyfile" ] && ! is_ours path "$caddyfile" && ! is_untouched_by_owner "$caddyfile"; then
    web=foreign-caddyfile
  fi
}

# Somebody else's programs on ports that our units listen on, told before anything is changed.
detect_ports() {
  local port pid program ports=("${PORT:-8080}")
  if [ "${STREAMS:-}" = s2 ]; then ports+=(8081 8082 8083); fi
  if [ "${S2_LITE:-}" = 1 ]; then ports+=("${S2_LITE_ENDPOINT##*:}"); fi
  for port in "${ports[@]}"; do
    # Another address of the machine is in nobody's way. Who it is, only root sees.
    pid=$(ss -ltnpH "( sport = :$port )" 2>/dev/null | awk '$4 ~ /^(0\.0\.0\.0|127\.0\.0\.1|\*):/' | grep -oP 'pid=\K[0-9]+' | head -n 1 || true)
    # Systemd holds our sockets.
    if [ -z "$pid" ] || [ "$pid" = 1 ] || grep -qE '/(millrace|s2-lite)' "/proc/$pid/cgroup" 2>/dev/null; then continue; fi
    program="$(cat "/proc/$pid/comm" 2>/dev/null) (process $pid)"
    if [ "$port" = "${PORT:-8080}" ]; then
      problems+=("Port $port is taken by $program: set PORT to a free one.")
    else
      problems+=("Port $port is taken by $program, and Millrace needs it on 127.0.0.1: let that program have another one.")
    fi
  done
}

# As its package put it there, or with our first line.
is_untouched_by_owner() {
  local packaged
  if [ "$(head -n 1 "$1")" = '# Managed by Millrace' ]; then return; fi
  packaged=$(dpkg-query -W -f='${Conffiles}' caddy 2>/dev/null | awk -v path="$1" '$1 == path { print $2 }')
  [ -n "$packaged" ] && [ "$(md5sum <"$1" | cut -d ' ' -f 1)" = "$packaged" ]
}

fit_node() { # prints a Node on the PATH that is fit to run Millrace, if there is one
  local node version
  node=$(PATH=$PATH:/usr/local/bin command -v node) || return 1
  version=$("$node" --version 2>/dev/null) || return 1
  is_fit_version "$version" || return 1
  is_shared_program "$node" && npm_of "$node" >/dev/null && readlink -f "$node"
}

is_fit_version() {
  case $1 in
    v24.[0-4].*) return 1 ;; # A proxy holds for Node's fetch alone.
    v24.* | v26.*) ;;        # The releases that isolated-vm, the one native dependency, ships a compiled module for.
    *) return 1 ;;
  esac
}

npm_of() { # prints the npm-cli.js that belongs to this Node
  local prefix candidate
  prefix=$(dirname "$(dirname "$(readlink -f "$1")")")
  for candidate in "$prefix/lib/node_modules/npm/bin/npm-cli.js" "$(readlink -f "$(dirname "$1")/npm" 2>/dev/null || true)" \
    "$(readlink -f "$(command -v npm || true)" 2>/dev/null || true)"; do
    # Debian's npm is in parts that only Debian's Node finds.
    case $candidate in /usr/share/nodejs/*) continue ;; esac
    if [ -f "$candidate" ]; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  return 1
}

fit_sops() { # prints a sops on the PATH that can do what `millrace secrets` asks of it
  local sops version
  sops=$(PATH=$PATH:/usr/local/bin command -v sops) || return 1
  version=$("$sops" --version --disable-version-check 2>/dev/null </dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1)
  has_version "${version:-0}" 3.11.0 && printf '%s\n' "$sops"
}

fit_s2() {
  local candidate
  for candidate in "$(command -v s2 || true)" /usr/local/bin/s2 "$OPT/bin/s2"; do
    if [ -x "$candidate" ]; then
      printf '%s\n' "$candidate"
      return
    fi
  done
  return 1
}

# --- Answers: from the environment, from what is installed, from the terminal ---

is_set() { [ -n "${!1:-}" ]; }

# A value of millrace.env, as env_line or its owner wrote it.
unquoted() {
  local value=$1
  if [[ $value == \"*\" ]]; then
    value=${value:1:-1}
    value=${value//\\\\/$'\1'}
    value=${value//\\n/$'\n'}
    value=${value//\\/}
    value=${value//$'\1'/\\}
  elif [[ $value == \'*\' ]]; then
    value=${value:1:-1}
  fi
  printf %s "$value"
}

# Takes what was answered before where it is not answered now.
load_installed_answers() {
  local name value sops
  # Its last line may have no end.
  while IFS='=' read -r name value || [ -n "$name" ]; do
    case $name in '' | *[!A-Z0-9_]*) continue ;; esac
    value=$(unquoted "$value")
    if [[ " ${CONFIG_NAMES[*]} " == *" $name "* ]] && ! is_set "$name"; then printf -v "$name" %s "$value"; fi
  done < <(cat "$ENV_FILE" 2>/dev/null || true)
  if ! is_set MILLRACE_REPO; then MILLRACE_REPO=$(git --git-dir="$OPT/repository.git" config remote.origin.url 2>/dev/null || true); fi
  if [ -r "$SECRETS_FILE" ] && sops=$(fit_sops); then
    for name in "${SECRET_NAMES[@]}"; do
      if is_set "$name"; then continue; fi
      value=$(SOPS_AGE_KEY_FILE=$ETC/age.key "$sops" --decrypt --extract "[\"$name\"]" "$SECRETS_FILE" 2>/dev/null </dev/null || true)
      if [ "$value" != placeholder ]; then printf -v "$name" %s "$value"; fi
    done
  fi
}

set_defaults() {
  local here
  if ! is_set MILLRACE_REPO; then
    here=$(cd "$(dirname "${BASH_SOURCE[0]:-/}")" && pwd)
    if [ -e "$here/.git" ] && [ -e "$here/src/main.ts" ]; then MILLRACE_REPO=$here; fi
  fi
  # Away from S2's own server, which an earlier setup had put here.
  if [ "${STREAMS:-}" = local ] && [ "${S2_LITE:-}" != 1 ] && [ "${S2_ACCOUNT_ENDPOINT:-}" = "$S2_LITE_ENDPOINT" ]; then
    S2_ACCOUNT_ENDPOINT='' S2_BASIN_ENDPOINT=''
  fi
  if [ "${S2_LITE:-}" = 1 ] || [ "${S2_ACCOUNT_ENDPOINT:-}" = "$S2_LITE_ENDPOINT" ]; then
    S2_LITE=1 STREAMS=s2
    # shellcheck disable=SC2034 # by its name, in CONFIG_NAMES
    S2_ACCOUNT_ENDPOINT=$S2_LITE_ENDPOINT S2_BASIN_ENDPOINT=$S2_LITE_ENDPOINT
    # It asks for none; the SDK wants a word.
    : "${S2_ACCESS_TOKEN:=ignored}"
  fi
  PUBLIC_URL=${PUBLIC_URL:-}
  PUBLIC_URL=${PUBLIC_URL%/}
}

# ask NAME QUESTION [DEFAULT]; for a secret, nothing is shown.
ask() {
  local name=$1 question=$2 default=${3:-} answer=
  if is_set "$name"; then return; fi
  until [ -n "$answer" ]; do
    printf '%s%s: ' "$question" "${default:+ [$default]}" >/dev/tty
    if [[ " ${SECRET_NAMES[*]} " == *" $name "* ]]; then
      IFS= read -rs answer </dev/tty || fail 'The terminal was closed.'
      printf '\n' >/dev/tty
    else
      IFS= read -r answer </dev/tty || fail 'The terminal was closed.'
    fi
    answer=${answer:-$default}
    if [ "$answer" = - ]; then return; fi
    printf -v "$name" %s "$answer"
    if ! is_valid "$name"; then
      printf '  That is not right: %s\n' "$(expectation "$name")" >/dev/tty
      answer=
      printf -v "$name" %s ''
    fi
  done
}

is_valid() {
  case $1 in
    MAIL_DOMAIN) [[ $MAIL_DOMAIN =~ ^[^[:space:]/@:,]+\.[^[:space:]/@:,]+(,\ *[^[:space:]/@:,]+\.[^[:space:]/@:,]+)*$ ]] ;;
    PUBLIC_URL) [[ $PUBLIC_URL =~ ^https?://[^/[:space:]@]+$ ]] ;;
    STREAMS) [[ $STREAMS =~ ^(local|s2|s2-lite)$ ]] ;;
    # A token in it would stand in Git's arguments and configuration.
    MILLRACE_REPO) [[ $MILLRACE_REPO != *://*:*@* && $MILLRACE_REPO != -* ]] ;;
    # Where the units may write, and not where S2's own server keeps its files.
    DATA_DIR) [[ $DATA_DIR =~ ^$DATA(/[^/]+)*/?$ && $DATA_DIR/ != */../* && $DATA_DIR/ != "$DATA"/s2/* ]] ;;
    # Where a service cannot look.
    TOOLS_REPO) [[ ${TOOLS_REPO#file://} != /@(root|home|tmp|var/tmp|run)/* ]] ;;
    RESEND_API_KEY | S2_ACCESS_TOKEN | ADMIN_TOKEN | GITHUB_PAT) [[ ${!1} =~ ^[!-~]+$ ]] ;;
    *) true ;;
  esac
}

expectation() {
  case $1 in
    MAIL_DOMAIN) echo 'a domain such as agents.example.com, or several with commas' ;;
    PUBLIC_URL) echo 'where webhooks reach this server, such as https://mail.example.com' ;;
    RESEND_API_KEY) echo 'a key with full access, from https://resend.com/api-keys' ;;
    S2_ACCESS_TOKEN) echo "an access token from S2's dashboard" ;;
    MILLRACE_REPO) echo 'the Git URL or path that Millrace comes from, without a token in it' ;;
    STREAMS) echo 'local, or s2' ;;
    DATA_DIR) echo "$DATA, or a folder below it: the units write nowhere else" ;;
    TOOLS_REPO) echo "a Git URL, or a path that every user can read, and not below /root, /home or /tmp: services do not see those" ;;
    *) echo 'one word without spaces' ;;
  esac
}

required_names() {
  echo MAIL_DOMAIN PUBLIC_URL RESEND_API_KEY MILLRACE_REPO
  if [ "${STREAMS:-local}" = s2 ]; then echo S2_ACCESS_TOKEN; fi
}

# Lists everything that is missing or malformed at once.
check_answers() {
  local name
  for name in $(required_names); do
    if ! is_set "$name"; then problems+=("$name is not set: $(expectation "$name")."); fi
  done
  if [ "${S2_LITE:-}" = 1 ] && ! fit_s2 >/dev/null && ! command -v cargo >/dev/null; then
    problems+=("S2_LITE=1 needs S2's program, and there is none: put it at /usr/local/bin/s2 (https://s2.dev/docs/cli/installation), or install cargo, which builds it here.")
  fi
  for name in MILLRACE_REPO MAIL_DOMAIN PUBLIC_URL STREAMS DATA_DIR RESEND_API_KEY S2_ACCESS_TOKEN ADMIN_TOKEN GITHUB_PAT TOOLS_REPO; do
    if is_set "$name" && ! is_valid "$name"; then problems+=("$name is not right: it is $(expectation "$name")."); fi
  done
}

ask_answers() {
  if ! { : >/dev/tty; } 2>/dev/null; then
    check_answers
    stop_at_problems 'There is no terminal to ask at. Set MILLRACE_UNATTENDED=1 and what is missing:'
    return
  fi
  ask MILLRACE_REPO 'Git URL or path that Millrace comes from'
  ask MAIL_DOMAIN 'Domain that receives mail, such as agents.example.com'
  ask PUBLIC_URL 'Where webhooks reach this server' "https://millrace.${MAIL_DOMAIN%%,*}"
  ask RESEND_API_KEY "Resend's key with full access (https://resend.com/api-keys; not shown)"
  ask STREAMS 'Where records lie: local (a file), s2 (the cloud) or s2-lite (S2 on this machine)' local
  if [ "$STREAMS" = s2-lite ]; then S2_LITE=1 STREAMS=s2; fi
  set_defaults
  if [ "$STREAMS" = s2 ]; then ask S2_ACCESS_TOKEN "S2's access token (not shown)"; fi
  ask TOOLS_REPO 'Git repository of your tools, or - for the examples' -
  if is_set TOOLS_REPO && [[ $TOOLS_REPO == https://* ]]; then ask GITHUB_PAT 'Token that reads it, or - if it is public (not shown)' -; fi
}

stop_at_problems() {
  local problem
  if [ ${#problems[@]} -eq 0 ]; then return; fi
  printf '%s\n' "$1" >&2
  for problem in "${problems[@]}"; do printf '  - %s\n' "$problem" >&2; done
  exit 1
}

# --- The steps ---

# What each step is about to do, in a line; also what --dry-run prints.
describe() {
  local found
  case $1 in
    packages)
      found=$(wanted_packages | paste -sd ' ')
      if [ -z "$found" ]; then echo 'nothing is missing'; else echo "apt-get install $found"; fi
      ;;
    node)
      if found=$(installed_node || fit_node); then
        echo "use $found ($("$found" --version))"
      else
        echo "Node $NODE_VERSION from ${NODE_MIRROR:-https://nodejs.org/dist} into $OPT/node, checksum verified"
      fi
      ;;
    sops)
      if found=$(fit_sops); then
        echo "use $found"
      else
        echo "sops $SOPS_VERSION from ${SOPS_MIRROR:-its releases on GitHub} as /usr/local/bin/sops, checksum verified"
      fi
      ;;
    s2)
      if [ "${S2_LITE:-}" != 1 ]; then
        echo "nothing: records lie in ${STREAMS:-local}"
      elif found=$(fit_s2); then
        echo "use $found for S2's own server on this machine"
      else
        echo "build s2-cli $S2_VERSION with cargo, for S2's own server on this machine"
      fi
      ;;
    account) echo "user and group millrace, $DATA" ;;
    release) echo "${MILLRACE_REF:-the newest release} of ${MILLRACE_REPO:-(MILLRACE_REPO)} into $OPT/releases, packages by its lockfile" ;;
    resend) echo "check the key and ${MAIL_DOMAIN:-(MAIL_DOMAIN)}; webhook to ${PUBLIC_URL:-(PUBLIC_URL)}/webhooks/resend" ;;
    secrets) echo "$SECRETS_FILE, encrypted for $ETC/age.key" ;;
    config) echo "$ENV_FILE and /usr/local/bin/millrace" ;;
    units) echo 'units of systemd in /etc/systemd/system' ;;
    caddy)
      case $web in
        caddy) echo '/etc/caddy/Caddyfile: HTTPS in front of the public routes' ;;
        foreign-caddyfile) echo "nothing: /etc/caddy/Caddyfile is the owner's; $ETC/Caddyfile is to be imported there" ;;
        *) echo "nothing: $web serves the web here; it is said how to pass requests on" ;;
      esac
      ;;
    start) echo 'switch to the release, start, wait until healthy' ;;
  esac
}

wanted_packages() {
  command -v curl >/dev/null || echo curl
  [ -e /etc/ssl/certs/ca-certificates.crt ] || echo ca-certificates
  command -v git >/dev/null || echo git
  command -v age-keygen >/dev/null || echo age
  if [ "${S2_LITE:-}" = 1 ] && ! command -v ip >/dev/null; then echo iproute2; fi
  if [ "$web" = caddy ] && ! has_version "$(caddy version 2>/dev/null | grep -oE '[0-9]+(\.[0-9]+)+' | head -n 1)" 2.6; then echo caddy; fi
}

apt_get() { DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -o DPkg::Lock::Timeout="$LOCK_WAIT_SECONDS" "$@"; }

do_packages() {
  local wanted package
  # Of a run that was broken off.
  if [ -n "$(dpkg --audit 2>/dev/null)" ]; then quietly 'dpkg --configure -a' dpkg --configure -a --force-confold; fi
  mapfile -t wanted < <(wanted_packages)
  if [ ${#wanted[@]} -eq 0 ]; then return; fi
  quietly 'apt-get update' apt_get update
  while read -r package; do record package "$package"; done < <(
    apt_get install -s --no-install-recommends "${wanted[@]}" 2>/dev/null | awk '$1 == "Inst" && $3 !~ /^\[/ { print $2 }'
  )
  quietly "apt-get install ${wanted[*]}" apt_get install -y --no-install-recommends "${wanted[@]}"
}

# The Node that an earlier run chose, unless it was ours and another one is pinned now.
installed_node() {
  local node
  node=$(readlink -e "$OPT/bin/node") || return 1
  case $node in "$OPT"/node/*) [ "$(cat "$OPT/node/pinned" 2>/dev/null)" = "$NODE_VERSION" ] || return 1 ;; esac
  is_fit_version "$("$node" --version 2>/dev/null)" && printf '%s\n' "$node"
}

do_node() {
  local node npm
  node=$(installed_node || fit_node) || node=$(fetch_node)
  npm=$(npm_of "$node") || fail "There is no npm beside $node." "Install Node $NODE_VERSION with its npm, or take that Node from the PATH."
  mkdir -p "$OPT/bin"
  link "$node" "$OPT/bin/node"
  link "$npm" "$OPT/bin/npm"
  PATH=$OPT/bin:$PATH
}

link() { # link TARGET PATH: at once, and only when it points elsewhere
  if [ "$(readlink "$2" 2>/dev/null)" = "$1" ]; then return; fi
  ln -sfn "$1" "$2.new"
  mv -fT "$2.new" "$2"
}

# Prints the path of the Node that it put into $OPT/node. A mirror may have another one of the same line.
fetch_node() {
  local base=${NODE_MIRROR:-https://nodejs.org/dist} folders=("v$NODE_VERSION/") folder archive=
  if [ -n "${NODE_MIRROR:-}" ]; then folders+=('latest-v24.x/' ''); fi
  for folder in "${folders[@]}"; do
    download "${base%/}/${folder}SHASUMS256.txt" "$work/SHASUMS256.txt" || continue
    for suffix in tar.gz tar.xz; do
      archive=$(awk '{ sub(/^\*/, "", $2); print $2 }' "$work/SHASUMS256.txt" | grep -E "^node-v24\.[0-9.]+-linux-$node_arch\.$suffix$" | head -n 1) || continue
      break 2
    done
  done
  if [ -z "$archive" ]; then fail "No Node 24 for linux-$node_arch at $base." "$(tail -n 1 "$work/curl" 2>/dev/null)" 'Set NODE_MIRROR, or put Node 24 with its npm on the PATH.'; fi
  download "${base%/}/$folder$archive" "$work/$archive" || fail "$base/$folder$archive could not be fetched." "$(tail -n 1 "$work/curl")"
  check_sum "$work/SHASUMS256.txt" "$archive"
  if [[ $archive == *.xz ]] && ! command -v xz >/dev/null; then
    record package xz-utils
    quietly 'apt-get install xz-utils' apt_get install -y --no-install-recommends xz-utils
  fi
  local version=${archive#node-} target
  target=$OPT/node/${version%%-linux*}
  rm -rf "$OPT"/node/.staging-*
  mkdir -p "$OPT/node/.staging-$$"
  quietly "unpacking $archive" tar -xf "$work/$archive" -C "$OPT/node/.staging-$$" --strip-components=1 --no-same-owner
  rm -rf "$target"
  mv -T "$OPT/node/.staging-$$" "$target"
  printf '%s\n' "$NODE_VERSION" >"$OPT/node/pinned"
  printf '%s\n' "$target/bin/node"
}

check_sum() { # check_sum SUMS FILE-IN-WORK
  if (cd "$work" && grep -E " \*?$2\$" "$1" | head -n 1 | sed 's/ \*/  /' | sha256sum --check --status --strict); then return; fi
  fail "The checksum of $2 is not the one that was published." 'Nothing of it was used. Try again; if it stays so, do not trust the mirror.'
}

do_sops() {
  local base=${SOPS_MIRROR:-https://github.com/getsops/sops/releases/download} file=sops-v$SOPS_VERSION.linux.$sops_arch
  if sops=$(fit_sops); then return; fi
  base=${base%/}/v$SOPS_VERSION
  if ! { download "$base/sops-v$SOPS_VERSION.checksums.txt" "$work/sops-sums" && download "$base/$file" "$work/$file"; }; then
    fail "sops $SOPS_VERSION could not be fetched from $base." "$(tail -n 1 "$work/curl")" 'Set SOPS_MIRROR, or put sops 3.11 or newer into /usr/local/bin.'
  fi
  check_sum "$work/sops-sums" "$file"
  install_file /usr/local/bin/sops 0755 <"$work/$file"
  sops=/usr/local/bin/sops
}

# --- The release: a bare mirror, and a folder for each commit, complete when it is there ---

mirror_git() { git --git-dir="$OPT/repository.git" "$@"; }

do_release() {
  local commit staging
  # A repository on this machine may be somebody else's; root trusts the path that it was given.
  if [[ $MILLRACE_REPO == /* || $MILLRACE_REPO == .* ]]; then
    printf '[include]\n\tpath = ~/.gitconfig\n[safe]\n\tdirectory = *\n' >"$work/gitconfig"
    export GIT_CONFIG_GLOBAL=$work/gitconfig
    MILLRACE_REPO=$(cd "$MILLRACE_REPO" && pwd)
  fi
  export GIT_TERMINAL_PROMPT=0
  [ -e "$OPT/repository.git/config" ] || quietly 'git init' git init -q --bare "$OPT/repository.git"
  if [ "$(mirror_git config remote.origin.url || true)" != "$MILLRACE_REPO" ]; then mirror_git config remote.origin.url "$MILLRACE_REPO"; fi
  quietly "fetching $MILLRACE_REPO" mirror_git fetch -q --force --prune origin '+refs/heads/*:refs/heads/*' '+refs/tags/*:refs/tags/*'
  commit=$(resolve_ref) || fail "$MILLRACE_REPO has no ${MILLRACE_REF:-default branch}." 'Set MILLRACE_REF to a branch, a tag or a commit.'
  release=$OPT/releases/${commit:0:12}
  if [ -d "$release" ]; then return; fi
  rm -rf "$OPT"/releases/.staging-*
  staging=$OPT/releases/.staging-$$
  mkdir -p "$staging"
  quietly "checking out ${commit:0:12}" check_out "$commit" "$staging"
  quietly 'npm ci' install_packages "$staging"
  mv -T "$staging" "$release"
}

# Prints the commit of MILLRACE_REF, or of the newest vX.Y.Z, or of the repository's default branch.
resolve_ref() {
  local ref=${MILLRACE_REF:-} symbolic
  if [ -z "$ref" ]; then ref=$(mirror_git tag --list 'v*' --sort=-v:refname | grep -xE 'v[0-9]+\.[0-9]+\.[0-9]+' | head -n 1) || true; fi
  if [ -z "$ref" ]; then
    symbolic=$(mirror_git ls-remote --symref origin HEAD | awk '$1 == "ref:" { print $2 }')
    ref=${symbolic:-HEAD}
    if [ "$ref" = HEAD ]; then ref=$(mirror_git ls-remote origin HEAD | cut -f 1); fi
  fi
  mirror_git rev-parse --verify --quiet "$ref^{commit}" && return
  mirror_git fetch -q origin "$ref" 2>>"$work/git" && mirror_git rev-parse --verify --quiet 'FETCH_HEAD^{commit}'
}

check_out() { mirror_git -c tar.umask=0022 archive "$1" | tar -x -C "$2" --no-same-owner; }

# No install scripts: what is native comes compiled, and no dependency runs code as root.
install_packages() {
  cd "$1" && npm_config_cache=$work/npm "$OPT/bin/node" "$OPT/bin/npm" ci --omit=dev --include=optional --ignore-scripts --no-audit --no-fund
}

# --- The whole ---

on_exit() {
  local status=$?
  rm -rf "${work:-}"
  if [ "$status" -ne 0 ] && [ -n "${step:-}" ]; then
    printf 'Setup ended in the step "%s". Run it again to go on from there; its log is %s.\n' "$step" "$LOG" >&2
  fi
}

# One setup at a time; what a killed one left running holds the lock until it has ended.
take_lock() {
  exec 9>"$LOCK"
  flock -n 9 && return
  say 'Another setup is running, or what a broken one started: waiting for it…'
  flock -w "$LOCK_WAIT_SECONDS" 9 || fail "It still runs after $LOCK_WAIT_SECONDS s." "Which one: fuser $LOCK"
  # What the other one drew (a token) or made at Resend (a secret) counts.
  load_installed_answers
  set_defaults
}

open_log() {
  (umask 077 && : >>"$LOG")
  exec 8>>"$LOG"
  log_is_open=1
  log "setup of Millrace, on $(sed -n 's/^PRETTY_NAME=//p' /etc/os-release)"
  mkdir -p "$ETC"
  record path "$INSTALLED"
  for path in "$ETC" "$OPT" "$DATA" "$LOG"; do record path "$path"; done
  mkdir -p "$OPT/bin" "$OPT/releases"
  work=$(mktemp -d "$OPT/.setup-XXXXXX")
  find "$OPT" -maxdepth 1 -name '.setup-*' ! -path "$work" -exec rm -rf {} +
}

# Where the machine goes out by a proxy: nobody asks that one for what is on this machine itself (is it healthy?), and
# Node goes by it only when told to.
use_proxy() {
  if [ -z "${http_proxy:-}${https_proxy:-}${HTTPS_PROXY:-}${all_proxy:-}${ALL_PROXY:-}" ]; then return; fi
  no_proxy=localhost,127.0.0.1,::1,${no_proxy:-${NO_PROXY:-}}
  export no_proxy=${no_proxy%,} NODE_USE_ENV_PROXY=1
  export NO_PROXY=$no_proxy
}

run_steps() {
  for step in "${STEPS[@]}"; do
    say "==> $step: $(describe "$step")"
    log "step $step"
    "do_$step"
    if [ "$step" = release ]; then
      # From here on, how it is done is the release's own business.
      for part in "$release"/deploy/setup/*.sh; do
        # shellcheck source=/dev/null
        . "$part"
      done
    fi
  done
  step=
}

main() {
  # A trace would show what is secret.
  { set +x; } 2>/dev/null
  set -euo pipefail
  umask 022
  export LC_ALL=C.UTF-8 HOME=${HOME:-/root} PATH=$PATH:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
  # Node knows the authorities of the web only; the machine may know one of its owner's besides, as curl does.
  if [ -r "$CA_FILE" ]; then export NODE_EXTRA_CA_CERTS=${NODE_EXTRA_CA_CERTS:-$CA_FILE}; fi
  use_proxy
  export -n "${SECRET_NAMES[@]}"
  local dry_run='' tool_secret
  for tool_secret in $(compgen -v TOOL_SECRET_); do export -n "${tool_secret?}"; done
  while [ $# -gt 0 ]; do
    case $1 in
      --help | -h) usage && return ;;
      --dry-run) dry_run=1 ;;
      *) fail "There is no option $1." 'setup.sh --help says what there is.' ;;
    esac
    shift
  done
  problems=()
  detect_machine
  detect_strangers
  detect_web
  load_installed_answers
  set_defaults
  if [ -n "$dry_run" ]; then
    for step in "${STEPS[@]}"; do printf '%s\t%s\n' "$step" "$(describe "$step")"; done
    check_answers
    detect_ports
    for problem in "${problems[@]}"; do printf 'problem\t%s\n' "$problem"; done
    return
  fi
  [ "$EUID" -eq 0 ] || fail 'Setup needs root.' 'As root: curl -fsSL https://…/setup.sh | bash, or … | sudo bash. Variables that are exported come along with sudo --preserve-env=NAME,… bash; after sudo, as NAME=value, a secret would stand in its log.'
  if [ "${MILLRACE_UNATTENDED:-}" != 1 ]; then
    stop_at_problems 'Setup cannot start here:'
    ask_answers
  fi
  check_answers
  detect_ports
  stop_at_problems 'Setup cannot start:'
  take_lock
  trap on_exit EXIT
  trap 'exit 130' INT TERM HUP
  open_log
  run_steps
  show_summary
}

{ main "$@"; }
