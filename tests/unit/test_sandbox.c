/* SPDX-License-Identifier: Apache-2.0 */
/* The sandboxes: in a child of each role, every call that matters is tried; a refused one must kill the process with SIGSYS, and an allowed one must not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "enclave/sandbox.h"
#include "lib/base/os.h"

enum { ARGS = 6, DONE = 42, FAILED = 43 };

struct call {
	const char *name;
	long number;
	long args[ARGS];
	unsigned roles; /* bits of the roles that may do it */
};

#define ENCLAVE	 (1u << SANDBOX_ENCLAVE)
#define VERIFIER (1u << SANDBOX_VERIFIER)
#define GUARDIAN (1u << SANDBOX_GUARDIAN)
/* a sanitizer maps memory wherever it runs */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MAPPERS (ENCLAVE | VERIFIER | GUARDIAN)
#else
#define MAPPERS (ENCLAVE | VERIFIER)
#endif

static const struct call calls[] = {
	{"open", SYS_open, {(long)"/etc/passwd", O_RDONLY}, 0},
	{"openat", SYS_openat, {AT_FDCWD, (long)"/etc/passwd", O_RDONLY}, 0},
	{"openat2", SYS_openat2, {AT_FDCWD, (long)"/etc/passwd"}, 0},
	{"open_by_handle_at", SYS_open_by_handle_at, {0}, 0},
	{"socket", SYS_socket, {AF_UNIX, SOCK_STREAM, 0}, 0},
	{"socketpair", SYS_socketpair, {AF_UNIX, SOCK_STREAM, 0}, 0},
	{"connect", SYS_connect, {0}, 0},
	{"bind", SYS_bind, {0}, 0},
	{"listen", SYS_listen, {0}, 0},
	{"accept4", SYS_accept4, {0}, 0},
	{"execve", SYS_execve, {(long)"/bin/true"}, 0},
	{"execveat", SYS_execveat, {AT_FDCWD, (long)"/bin/true"}, 0},
	{"fork", SYS_fork, {0}, 0},
	{"vfork", SYS_vfork, {0}, 0},
	{"clone", SYS_clone, {SIGCHLD}, 0},
	{"clone3", SYS_clone3, {0}, 0},
	{"ptrace attach", SYS_ptrace, {PTRACE_ATTACH, 1}, 0},
	{"ptrace detach", SYS_ptrace, {PTRACE_DETACH, 1}, 0},
	{"ptrace peek", SYS_ptrace, {PTRACE_PEEKDATA, 1}, 0},
	{"ptrace continue", SYS_ptrace, {PTRACE_CONT, 1}, GUARDIAN},
	{"process_vm_readv", SYS_process_vm_readv, {1}, 0},
	{"process_vm_writev", SYS_process_vm_writev, {1}, 0},
	{"pidfd_getfd", SYS_pidfd_getfd, {0}, 0},
	{"wait4", SYS_wait4, {-1, 0, WNOHANG}, GUARDIAN},
	{"kill init", SYS_kill, {1, 0}, 0},
	{"kill another", SYS_kill, {0x3fffffff, SIGKILL}, 0},
	{"tgkill", SYS_tgkill, {1, 1, 0}, 0},
	{"read", SYS_read, {0}, 0},
	{"write to stdout", SYS_write, {1, (long)"", 0}, 0},
	{"write to stderr", SYS_write, {2, (long)"", 0}, ENCLAVE},
	{"close", SYS_close, {99}, ENCLAVE},
	{"dup", SYS_dup, {2}, 0},
	{"pipe2", SYS_pipe2, {0}, 0},
	{"unlink", SYS_unlink, {(long)"/nonexistent"}, 0},
	{"rename", SYS_rename, {(long)"/nonexistent", (long)"/nonexistent2"}, 0},
	{"setuid", SYS_setuid, {0}, 0},
	{"prctl dumpable", SYS_prctl, {PR_SET_DUMPABLE, 1}, 0},
	{"setrlimit", SYS_setrlimit, {RLIMIT_CORE, 0}, 0},
	{"prlimit64", SYS_prlimit64, {0, RLIMIT_CORE}, 0},
	{"ioctl", SYS_ioctl, {2, 0}, 0},
	{"io_uring_setup", SYS_io_uring_setup, {1, 0}, 0},
	{"bpf", SYS_bpf, {0}, 0},
	{"userfaultfd", SYS_userfaultfd, {0}, 0},
	{"perf_event_open", SYS_perf_event_open, {0}, 0},
	{"keyctl", SYS_keyctl, {0}, 0},
	{"fcntl dup", SYS_fcntl, {2, F_DUPFD, 0}, 0},
	{"fcntl seals", SYS_fcntl, {99, F_ADD_SEALS, 0}, ENCLAVE},
	{"getsockopt peer", SYS_getsockopt, {99, SOL_SOCKET, SO_PEERCRED}, ENCLAVE},
	{"getsockopt other", SYS_getsockopt, {99, SOL_SOCKET, SO_TYPE}, 0},
	{"setsockopt", SYS_setsockopt, {99, SOL_SOCKET, SO_PASSCRED}, 0},
	{"mmap", SYS_mmap, {0, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1}, MAPPERS},
	{"mmap executable", SYS_mmap,
		{0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1}, 0},
	{"mprotect executable", SYS_mprotect, {0, 4096, PROT_EXEC}, 0},
	{"memfd_secret", SYS_memfd_secret, {0}, ENCLAVE},
	{"memfd_create", SYS_memfd_create, {(long)"x", 0}, ENCLAVE},
	{"recvmsg", SYS_recvmsg, {99}, ENCLAVE | VERIFIER},
	{"sendmsg", SYS_sendmsg, {99}, ENCLAVE | VERIFIER},
	{"ppoll", SYS_ppoll, {0, 0, 0}, 0}, /* tried apart: it waits for ever */
	{"getrandom", SYS_getrandom, {0, 0, 0}, ENCLAVE | VERIFIER},
	{"getpid", SYS_getpid, {0}, ENCLAVE | VERIFIER},
};

/* Enters the role in a child and makes the call. Returns wait's status. */
static int try_call(enum sandbox_role role, const struct call *call)
{
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		const struct rlimit none = {0, 0};
		setrlimit(RLIMIT_CORE, &none);
		if (sandbox_enter(role, 0, -1, -1))
			_exit(FAILED);
		syscall(call->number, call->args[0], call->args[1], call->args[2], call->args[3],
			call->args[4], call->args[5]);
		_exit(DONE);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void calls_of_each_role(void **state)
{
	(void)state;
	for (int role = 0; role < SANDBOX_ROLES; role++) {
		for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
			if (calls[i].number == SYS_ppoll && role != SANDBOX_GUARDIAN)
				continue;
			int status = try_call((enum sandbox_role)role, &calls[i]);
			bool may = (calls[i].roles & (1u << role)) != 0;
			if (may && !(WIFEXITED(status) && WEXITSTATUS(status) == DONE))
				fail_msg("role %d may call %s but got status %x", role,
					calls[i].name, (unsigned)status);
			if (!may && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS))
				fail_msg("role %d may not call %s but got status %x", role,
					calls[i].name, (unsigned)status);
		}
	}
}

/* The enclave may kill the one process that it was told, by SIGKILL, and no other. */
static void only_the_verifier_is_killed(void **state)
{
	int status = 0;
	pid_t victim = fork(), other;

	(void)state;
	if (victim == 0) {
		pause();
		_exit(0);
	}
	for (int round = 0; round < 3; round++) {
		other = fork();
		if (other == 0) {
			const struct rlimit none = {0, 0};
			setrlimit(RLIMIT_CORE, &none);
			if (sandbox_enter(SANDBOX_ENCLAVE, victim, -1, -1))
				_exit(FAILED);
			syscall(SYS_kill, (long)(round == 0 ? victim + 1 : victim),
				(long)(round == 1 ? SIGSTOP : SIGKILL));
			_exit(DONE);
		}
		assert_int_equal(waitpid(other, &status, 0), other);
		if (round < 2)
			assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS);
		else
			assert_true(WIFEXITED(status) && WEXITSTATUS(status) == DONE);
	}
	assert_int_equal(waitpid(victim, &status, 0), victim);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* Runs work in a child; true when it gave 0. */
static bool in_child(int (*work)(void))
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0)
		_exit(work());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

static int harden_work(void)
{
	struct rlimit core;

	if (sandbox_harden() || prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0 ||
		prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 || getrlimit(RLIMIT_CORE, &core) != 0 ||
		core.rlim_max != 0)
		return 1;
	return raise(SIGTERM) || raise(SIGINT) || raise(SIGHUP) || raise(SIGPIPE);
}

static int capabilities_work(void)
{
	char *text = NULL;
	size_t bytes = 0;

	if (sandbox_drop_capabilities() ||
		os_read_file("/proc/self/status", 1 << 16, &text, &bytes))
		return 1;
	return !strstr(text, "CapEff:\t0000000000000000\n") ||
	       !strstr(text, "CapPrm:\t0000000000000000\n") ||
	       (geteuid() == 0 && !strstr(text, "CapBnd:\t0000000000000000\n"));
}

static int limits_work(void)
{
	unsigned fds = 0;
	struct rlimit limit;

	if (sandbox_raise_limits(100, &fds) || fds != 100)
		return 1;
	limit.rlim_cur = limit.rlim_max = 64;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || sandbox_raise_limits(100, &fds) || fds != 64)
		return 1;
	return getrlimit(RLIMIT_MEMLOCK, &limit) != 0 || limit.rlim_cur != limit.rlim_max;
}

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

static int close_work(void)
{
	int high = fcntl(0, F_DUPFD, 50);

	if (high < 50 || sandbox_close_all_but(high) || !is_open(high) || is_open(0) || is_open(2))
		return 1;
	return sandbox_close_all_but(-1) != SECPOOL_OK || is_open(high);
}

static void processes_give_up(void **state)
{
	(void)state;
	assert_true(in_child(harden_work));
	assert_true(in_child(capabilities_work));
	assert_true(in_child(limits_work));
	assert_true(in_child(close_work));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(calls_of_each_role),
		cmocka_unit_test(only_the_verifier_is_killed),
		cmocka_unit_test(processes_give_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
