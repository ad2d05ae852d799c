/**
 * Puts a process in its own fences before it becomes Node: a seccomp filter and a Landlock rule set, neither
 * of which needs a privilege, a namespace or a unit of the service manager.
 *
 * Node cannot make the two system calls. `perl` can, in its own language, and is part of every Debian and
 * Ubuntu (perl-base is essential there); on a machine without it these layers are missing, and the log says
 * so. A fence that cannot be put up ends the program, so that what is said to be in force is.
 */
import { realpathSync } from 'node:fs';
import { childReadPaths } from './programs.ts';
import { OWN_ID_MARK, seccompFilter } from './seccomp-filter.ts';

const PERL = '/usr/bin/perl';

/** prctl(2): PR_SET_NO_NEW_PRIVS is 38, PR_SET_SECCOMP is 22, SECCOMP_MODE_FILTER is 2. Arguments: prctl's number, the filter, the command. */
const SECCOMP = [
  'my ($prctl, $hex, @command) = @ARGV;',
  'my $own = unpack("H8", pack("V", $$));',
  `$hex =~ s/${OWN_ID_MARK}/$own/g;`,
  'my $filter = pack("H*", $hex);',
  'my $program = pack("S x![Q] P", length($filter) / 8, $filter);',
  'syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";',
  'syscall($prctl, 22, 2, $program, 0, 0) == 0 or die "seccomp: $!";',
  'exec { $command[0] } @command or die "exec: $!";',
].join('');

/**
 * landlock(7): reading and executing is permitted beneath the paths, everything else that the kernel's version
 * can forbid is forbidden: other files, TCP, signals and sockets to processes outside. Arguments: prctl's number, how many paths, the
 * paths, the command.
 */
const LANDLOCK = [
  'my ($prctl, $count, @rest) = @ARGV;',
  'my @paths = splice(@rest, 0, $count);',
  'my $version = syscall(444, 0, 0, 1);',
  'die "landlock: $!" if $version < 1;',
  'my $files = $version >= 3 ? 0x7fff : $version == 2 ? 0x3fff : 0x1fff;',
  'my $rules = pack("QQQ", $files, $version >= 4 ? 3 : 0, $version >= 6 ? 3 : 0);',
  'my $size = $version >= 6 ? 24 : $version >= 4 ? 16 : 8;',
  'my $set = syscall(444, $rules, $size, 0);',
  'die "landlock: $!" if $set < 0;',
  'for my $path (@paths) {',
  'sysopen(my $file, $path, 0x280000) or next;',
  'my $rule = pack("Ql", -d $path ? 13 : 5, fileno($file));',
  'syscall(445, $set, 1, $rule, 0) == 0 or die "landlock $path: $!";',
  '}',
  'syscall($prctl, 38, 1, 0, 0, 0) == 0 or die "no_new_privs: $!";',
  'syscall(446, $set, 0) == 0 or die "landlock: $!";',
  'exec { $rest[0] } @rest or die "exec: $!";',
].join('');

const LIBRARIES = ['/lib', '/lib64', '/usr/lib', '/usr/lib64', '/etc/ld.so.cache', '/etc/ssl/openssl.cnf'];
const PRCTL: Readonly<Record<string, string>> = { x64: '157', arm64: '167' };

/** Wraps a command so that it may make few system calls; nothing where that is not possible. */
export function fewSystemCalls(usesJit: boolean): string[][] {
  const filter = seccompFilter(process.arch, usesJit);
  return filter === null ? [] : [[PERL, '-e', SECCOMP, PRCTL[process.arch]!, filter]];
}

/** Wraps a command so that it reads what Node and isolated-vm are made of, and no other file. */
export function onlyItsOwnFiles(): string[][] {
  const prctl = PRCTL[process.arch];
  if (prctl === undefined) return [];
  const paths = [
    realpathSync(process.execPath),
    ...LIBRARIES,
    ...childReadPaths(),
    '/dev/null',
    '/dev/urandom',
  ];
  return [[PERL, '-e', LANDLOCK, prctl, String(paths.length), ...paths]];
}
