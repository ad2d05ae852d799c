#!/usr/bin/env bash
# Takes Millrace off this server: what setup.sh wrote down in /etc/millrace/installed, and nothing else.
#   deploy/uninstall.sh --keep-data | --export FOLDER | --purge   [--keep-packages] [--yes]
# --keep-data leaves /var/lib/millrace (mail, streams) and /etc/millrace (keys, secrets), where the next setup finds
# them; --export copies both to FOLDER and then removes them; --purge removes them.
# It stands in functions, because it removes the folder that it lies in.
set -euo pipefail

ETC=/etc/millrace
OPT=/opt/millrace
DATA=/var/lib/millrace
INSTALLED=$ETC/installed
UNIT_DIR=/etc/systemd/system

usage() { sed -n '3,6s/^# *//p' "$1"; }

fail() {
  printf '%s\n' "$@" >&2
  exit 1
}

recorded() { awk -v kind="$1" '$1 == kind { print substr($0, length(kind) + 2) }' "$INSTALLED"; }

confirm() {
  local answer
  if [ -n "$yes" ] || ! [ -t 0 ]; then return; fi
  read -rp "Remove Millrace from this server ($1)? [y/N] " answer
  [[ $answer == [yY]* ]] || fail 'Nothing was removed.'
}

stop_units() {
  local unit units
  were_active=()
  mapfile -t units < <(recorded unit)
  for unit in "${units[@]}"; do
    if systemctl is-active -q "$unit"; then were_active+=("$unit"); fi
  done
  systemctl stop "${units[@]}" 'millrace*' >/dev/null 2>&1 || true
  # Nothing of ours writes any more: an export is whole.
  if pgrep -u millrace >/dev/null 2>&1; then fail 'Processes of the user millrace still run:' "$(pgrep -au millrace)"; fi
}

disable_units() {
  local unit
  for unit in $(recorded unit); do
    systemctl disable --now "$unit" >/dev/null 2>&1 || true
  done
}

# Where the archive cannot be made (a full disk), all is as it was.
export_data() {
  local archive
  archive=$1/millrace-$(date -u +%Y%m%dT%H%M%SZ).tar.gz
  if ! { mkdir -p "$1" && (umask 077 && tar -czf "$archive" -C / "${DATA#/}" "${ETC#/}") && tar -tzf "$archive" >/dev/null; }; then
    rm -f "$archive"
    if [ ${#were_active[@]} -gt 0 ]; then systemctl start "${were_active[@]}" || true; fi
    fail "$archive cannot be made: nothing was removed, and what ran was started again."
  fi
  printf 'Exported %s and %s to %s\n' "$DATA" "$ETC" "$archive"
}

# True while the Caddyfile is as setup wrote it: its owner may have taken it over.
caddyfile_is_ours() {
  recorded path | grep -x /etc/caddy/Caddyfile >/dev/null && [ "$(head -n 1 /etc/caddy/Caddyfile 2>/dev/null)" = '# Managed by Millrace' ]
}

# Caddy goes on with what its package brought, unless its package goes as well.
restore_caddyfile() {
  caddy_is_kept=
  if ! caddyfile_is_ours; then
    caddy_is_kept=1
  elif [ -e "$ETC/Caddyfile.packaged" ]; then
    cp -p "$ETC/Caddyfile.packaged" /etc/caddy/Caddyfile
    systemctl try-reload-or-restart caddy >/dev/null 2>&1 || true
  else
    systemctl disable --now caddy >/dev/null 2>&1 || true
    rm -f /etc/caddy/Caddyfile
  fi
}

# The packages that setup installed, unless something that came since needs one of them.
remove_packages() {
  local package wanted=() others
  while read -r package; do
    if [ "$package" = caddy ] && [ -n "$caddy_is_kept" ]; then continue; fi
    if dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null | grep -E '^(installed|config-files)$' >/dev/null; then wanted+=("$package"); fi
  done < <(recorded package)
  if [ ${#wanted[@]} -eq 0 ]; then return; fi
  others=$(apt-get purge -s "${wanted[@]}" 2>/dev/null | awk '$1 == "Remv" || $1 == "Purg" { print $2 }' | grep -vxF -f <(printf '%s\n' "${wanted[@]}") | paste -sd ' ' || true)
  if [ -n "$others" ]; then
    printf 'Kept, because %s would go along: %s\n' "$others" "${wanted[*]}"
    return
  fi
  DEBIAN_FRONTEND=noninteractive apt-get purge -y -qq "${wanted[@]}" >/dev/null 2>&1
  # Certificates and keys of the site, which the package leaves behind.
  if [[ " ${wanted[*]} " == *' caddy '* ]]; then rm -rf /var/lib/caddy; fi
}

remove_files() {
  local path
  while read -r path; do
    case $path in
      /etc/caddy/Caddyfile) ;;
      "$ETC" | "$ETC"/* | "$DATA" | "$DATA"/*) ;;
      *) rm -rf "$path" "$path.new" ;;
    esac
  done < <(recorded path)
  rmdir "$UNIT_DIR"/{caddy.service.d,millrace.service.d,millrace-.service.d} 2>/dev/null || true
  rm -rf "$OPT" /var/cache/millrace /var/cache/millrace-* /run/millrace /run/millrace-setup.lock
  systemctl daemon-reload
  systemctl reset-failed 'millrace*' 's2-lite*' 2>/dev/null || true
}

remove_data() {
  local had_user=
  if recorded user | grep -x millrace >/dev/null; then had_user=1; fi
  rm -rf "$DATA" "$ETC" /var/log/millrace-setup.log
  if [ -n "$had_user" ]; then
    userdel millrace 2>/dev/null || true
    groupdel millrace 2>/dev/null || true
  fi
}

main() {
  local mode='' folder='' keep_packages=''
  yes=''
  while [ $# -gt 0 ]; do
    case $1 in
      --keep-data | --purge) mode=${1#--} ;;
      --export)
        mode=export folder=${2:-}
        [[ $folder == /* && $folder != "$OPT"* && $folder != "$DATA"* && $folder != "$ETC"* ]] || fail '--export needs the absolute path of a folder that stays.'
        shift
        ;;
      --keep-packages) keep_packages=1 ;;
      --yes) yes=1 ;;
      --help | -h) usage "${BASH_SOURCE[0]}" && return ;;
      *) fail "There is no option $1." "$(usage "${BASH_SOURCE[0]}")" ;;
    esac
    shift
  done
  [ -n "$mode" ] || fail 'Say what becomes of the data:' "$(usage "${BASH_SOURCE[0]}")"
  [ "$EUID" -eq 0 ] || fail 'This needs root.'
  [ -e "$INSTALLED" ] || fail "There is no $INSTALLED: setup.sh put nothing on this machine."
  cd /
  confirm "$mode"
  stop_units
  if [ "$mode" = export ]; then export_data "$folder"; fi
  disable_units
  restore_caddyfile
  remove_files
  if [ "$mode" != keep-data ]; then
    if [ -z "$keep_packages" ]; then remove_packages; fi
    remove_data
    echo 'Millrace is removed.'
  else
    # The list is what tells the next setup that these are its own.
    printf 'Millrace is removed. Left are %s, %s and the user millrace, which setup.sh takes up again. To remove them: deploy/uninstall.sh --purge of a checkout.\n' "$DATA" "$ETC"
  fi
}

{ main "$@"; exit; }
