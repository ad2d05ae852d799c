/**
 * The seccomp filter of a sandbox process: the system calls that Node and V8 need once they run, and no other.
 * None of them makes a socket, a process, a namespace or a key; what is not named answers ENOSYS, as on an old
 * kernel, so that libraries fall back or fail in an orderly way. Of some only a part is let through: threads
 * but no processes, signals to oneself, limits of oneself, and no memory that is both written and executed.
 *
 * Made here and not by a library, because what is there needs a compiler at installation. `confinement.ts`
 * puts it in force. Numbers: Linux 6.1, asm/unistd_64.h (x86-64) and asm-generic/unistd.h (arm64).
 */
type Architecture = 'x64' | 'arm64';

/** linux/audit.h */
const AUDIT: Readonly<Record<Architecture, number>> = { x64: 0xc000003e, arm64: 0xc00000b7 };

/** In the order of how often they are made. Null where an architecture has no such call. */
const PERMITTED: Readonly<Record<string, readonly [x64: number, arm64: number | null]>> = {
  read: [0, 63],
  write: [1, 64],
  readv: [19, 65],
  writev: [20, 66],
  pread64: [17, 67],
  pwrite64: [18, 68],
  close: [3, 57],
  fstat: [5, 80],
  newfstatat: [262, 79],
  statx: [332, 291],
  lseek: [8, 62],
  munmap: [11, 215],
  mremap: [25, 216],
  madvise: [28, 233],
  brk: [12, 214],
  rt_sigaction: [13, 134],
  rt_sigprocmask: [14, 135],
  rt_sigreturn: [15, 139],
  sigaltstack: [131, 132],
  ioctl: [16, 29],
  fcntl: [72, 25],
  dup: [32, 23],
  dup3: [292, 24],
  pipe2: [293, 59],
  eventfd2: [290, 19],
  epoll_create1: [291, 20],
  epoll_ctl: [233, 21],
  epoll_pwait: [281, 22],
  epoll_pwait2: [441, 441],
  ppoll: [271, 73],
  futex: [202, 98],
  set_robust_list: [273, 99],
  get_robust_list: [274, 100],
  rseq: [334, 293],
  set_tid_address: [218, 96],
  membarrier: [324, 283],
  sched_yield: [24, 124],
  sched_getaffinity: [204, 123],
  sched_getparam: [143, 121],
  sched_getscheduler: [145, 120],
  nanosleep: [35, 101],
  clock_nanosleep: [230, 115],
  clock_gettime: [228, 113],
  clock_getres: [229, 114],
  gettimeofday: [96, 169],
  getrandom: [318, 278],
  getrusage: [98, 165],
  times: [100, 153],
  sysinfo: [99, 179],
  uname: [63, 160],
  getpid: [39, 172],
  getppid: [110, 173],
  gettid: [186, 178],
  getuid: [102, 174],
  geteuid: [107, 175],
  getgid: [104, 176],
  getegid: [108, 177],
  getpgid: [121, 155],
  getsid: [124, 156],
  capget: [125, 90],
  prctl: [157, 167],
  exit: [60, 93],
  exit_group: [231, 94],
  restart_syscall: [219, 128],
  openat: [257, 56],
  faccessat: [269, 48],
  faccessat2: [439, 439],
  readlinkat: [267, 78],
  getcwd: [79, 17],
  getdents64: [217, 61],
  statfs: [137, 43],
  fstatfs: [138, 44],
  execve: [59, 221],
  wait4: [61, 260],
  getsockopt: [55, 209],
  getsockname: [51, 204],
  getpeername: [52, 205],
  shutdown: [48, 210],
  mincore: [27, 232],
  pkey_alloc: [330, 289],
  pkey_free: [331, 290],
  landlock_create_ruleset: [444, 444],
  landlock_add_rule: [445, 445],
  landlock_restrict_self: [446, 446],
  seccomp: [317, 277],
  access: [21, null],
  open: [2, null],
  stat: [4, null],
  lstat: [6, null],
  readlink: [89, null],
  poll: [7, null],
  select: [23, null],
  pipe: [22, null],
  dup2: [33, null],
  epoll_wait: [232, null],
  epoll_create: [213, null],
  eventfd: [284, null],
  arch_prctl: [158, null],
  time: [201, null],
  getrlimit: [97, null],
};

/** The process's own id, which is known only when the filter is put in force; it is put in the place of this. */
export const OWN_ID_MARK = 'efbeadde';
const OWN_ID = 0xdeadbeef;

const CLONE_THREAD = 0x10000;
const PROT_WRITE_EXEC = 6;
const PROT_EXEC = 4;
const MAP_ANONYMOUS = 0x20;

/** Instructions of classic BPF on `struct seccomp_data`: https://docs.kernel.org/userspace-api/seccomp_filter.html */
const LOAD = 0x20;
const AND = 0x54;
const EQUALS = 0x15;
const AT_LEAST = 0x35;
const HAS_BITS = 0x45;
const RETURN = 0x06;
const ALLOW = 0x7fff0000;
const NO_SUCH_CALL = 0x00050000 | 38;
const KILL = 0x80000000;
const NUMBER_AT = 0;
const ARCHITECTURE_AT = 4;
/** The lower half of an argument; no upper half matters here. */
const argumentAt = (index: number): number => 16 + 8 * index;

type Instruction = readonly [code: number, k: number, ifTrue?: number, ifFalse?: number];
const allow: Instruction = [RETURN, ALLOW];
const refuse: Instruction = [RETURN, NO_SUCH_CALL];

/** Allowed if an argument is this value. */
const ifArgumentIs = (index: number, value: number): Instruction[] => [
  [LOAD, argumentAt(index)],
  [EQUALS, value, 0, 1],
  allow,
  refuse,
];

/** Refused if the protection asked for is both to write and to execute, or (of new memory) to execute at all. */
const unlessItMakesCode = (isMmap: boolean, usesJit: boolean): Instruction[] => {
  if (usesJit) return [allow];
  const both: Instruction[] = [
    [LOAD, argumentAt(2)],
    [AND, PROT_WRITE_EXEC],
    [EQUALS, PROT_WRITE_EXEC, 0, 1],
    refuse,
    [LOAD, argumentAt(2)],
    [HAS_BITS, PROT_EXEC, 1, 0],
    allow,
  ];
  // The loader maps libraries to be executed: files, not new memory.
  return isMmap
    ? [...both, [LOAD, argumentAt(3)], [HAS_BITS, MAP_ANONYMOUS, 1, 0], allow, refuse]
    : [...both, refuse];
};

const conditional = (usesJit: boolean): [x64: number, arm64: number, Instruction[]][] => [
  [9, 222, unlessItMakesCode(true, usesJit)], // mmap
  [10, 226, unlessItMakesCode(false, usesJit)], // mprotect
  [56, 220, [[LOAD, argumentAt(0)], [HAS_BITS, CLONE_THREAD, 0, 1], allow, refuse]], // clone
  [302, 261, ifArgumentIs(0, 0)], // prlimit64
  [62, 129, ifArgumentIs(0, OWN_ID)], // kill
  [234, 131, ifArgumentIs(0, OWN_ID)], // tgkill
];

/** The filter's program in hexadecimal; null on an architecture that it is not made for. */
export function seccompFilter(architecture: string, usesJit: boolean): string | null {
  if (architecture !== 'x64' && architecture !== 'arm64') return null;
  const column = architecture === 'x64' ? 0 : 1;
  const plain = Object.values(PERMITTED).map((numbers) => numbers[column]);
  const program: Instruction[] = [
    [LOAD, ARCHITECTURE_AT],
    [EQUALS, AUDIT[architecture], 1, 0],
    [RETURN, KILL],
    [LOAD, NUMBER_AT],
    // Calls of x86-64's other ABI (x32) have numbers above this.
    [AT_LEAST, 0x40000000, 0, 1],
    refuse,
    ...plain.flatMap((number): Instruction[] => (number === null ? [] : [[EQUALS, number, 0, 1], allow])),
    ...conditional(usesJit).flatMap((row): Instruction[] => [
      [EQUALS, row[column], 0, row[2].length],
      ...row[2],
    ]),
    refuse,
  ];
  return Buffer.concat(program.map(encoded)).toString('hex');
}

/** `struct sock_filter` of linux/filter.h. */
function encoded([code, k, ifTrue = 0, ifFalse = 0]: Instruction): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeUInt16LE(code, 0);
  bytes.writeUInt8(ifTrue, 2);
  bytes.writeUInt8(ifFalse, 3);
  bytes.writeUInt32LE(k, 4);
  return bytes;
}
