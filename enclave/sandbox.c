/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/sandbox.h"

#include <cap-ng.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/os.h"

enum { RULE_ARGS_MOST = 2 };

#define ENCLAVE	 (1u << SANDBOX_ENCLAVE)
#define VERIFIER (1u << SANDBOX_VERIFIER)
#define GUARDIAN (1u << SANDBOX_GUARDIAN)
#define SERVERS	 (ENCLAVE | VERIFIER)
#define ALL	 (SERVERS | GUARDIAN)

/* A call that is allowed; where there are args, only with these. A call may have several rows. */
struct rule {
	int call;
	unsigned roles;
	unsigned arg_count;
	struct scmp_arg_cmp args[RULE_ARGS_MOST];
};

#define CALL(name) SCMP_SYS(name)
/* argument n has none of the bits in mask; is exactly value */
#define WITHOUT(n, mask)                                                                           \
	{                                                                                          \
		.arg = (n), .op = SCMP_CMP_MASKED_EQ, .datum_a = (mask), .datum_b = 0              \
	}
#define IS(n, value)                                                                               \
	{                                                                                          \
		.arg = (n), .op = SCMP_CMP_EQ, .datum_a = (scmp_datum_t)(value)                    \
	}

static const struct rule rules[] = {
	/* messages; sockets are there already */
	{CALL(recvmsg), SERVERS, 0, {}},
	{CALL(sendmsg), SERVERS, 0, {}},
	{CALL(ppoll), SERVERS, 0, {}}, /* waits for them, with deadlines */
	{CALL(poll), ENCLAVE, 0, {}},  /* the same for the TPM's answer */
	{CALL(close), ENCLAVE, 0, {}}, /* a client's socket, a key's descriptor */
	/* who a client is: SO_PEERCRED, read by the enclave itself */
	{CALL(getsockopt), ENCLAVE, 2, {IS(1, SOL_SOCKET), IS(2, SO_PEERCRED)}},
	/* the log, on stderr and nowhere else */
	{CALL(write), ENCLAVE, 1, {IS(0, STDERR_FILENO)}},
	/* memory, never executable */
	{CALL(mmap), SERVERS, 1, {WITHOUT(2, PROT_EXEC)}},     /* malloc, secret pages */
	{CALL(mprotect), SERVERS, 1, {WITHOUT(2, PROT_EXEC)}}, /* malloc's arenas, guard pages */
	{CALL(munmap), SERVERS, 0, {}},			       /* the same, given back */
	{CALL(mremap), SERVERS, 0, {}},			       /* realloc of large blocks */
	{CALL(brk), SERVERS, 0, {}},			       /* malloc */
	{CALL(madvise), SERVERS, 0, {}},      /* DONTFORK, DONTDUMP of secret pages */
	{CALL(mlock), ENCLAVE, 0, {}},	      /* secret pages */
	{CALL(munlock), ENCLAVE, 0, {}},      /* secret pages given back */
	{CALL(memfd_secret), ENCLAVE, 0, {}}, /* a key's page for a client */
	{CALL(memfd_create), ENCLAVE, 0, {}}, /* the same, where policy allows the fallback */
	{CALL(ftruncate), ENCLAVE, 0, {}},    /* gives either its one page */
	{CALL(fcntl), ENCLAVE, 1, {IS(1, F_ADD_SEALS)}}, /* the fallback is sealed */
	{CALL(fcntl), ENCLAVE, 1, {IS(1, F_GET_SEALS)}}, /* and the seals looked at */
	/* randomness, time, OpenSSL's check whether it was forked */
	{CALL(getrandom), SERVERS, 0, {}},
	{CALL(clock_gettime), SERVERS, 0, {}},
	{CALL(getpid), SERVERS, 0, {}},
	/* libc: locks of malloc and stdio, abort's own signal, a call restarted after a stop */
	{CALL(futex), SERVERS, 0, {}},
	{CALL(rt_sigprocmask), SERVERS, 0, {}},
	{CALL(restart_syscall), ALL, 0, {}},
	{CALL(rt_sigreturn), ALL, 0, {}},
	{CALL(exit_group), ALL, 0, {}},
	{CALL(exit), ALL, 0, {}},
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
	{CALL(sched_yield), ALL, 0, {}}, /* the sanitizer's own locks */
	{CALL(gettid), ALL, 0, {}},	 /* its thread registry */
	{CALL(sigaltstack), ALL, 0, {}}, /* its signal stack */
	{CALL(futex), GUARDIAN, 0, {}},	 /* its locks, and its memory, also in the guardian */
	{CALL(munmap), GUARDIAN, 0, {}},
	{CALL(madvise), GUARDIAN, 0, {}},
	{CALL(mmap), GUARDIAN, 1, {WITHOUT(2, PROT_EXEC)}},
#endif
	/* the guardian: waits for its tracees and lets them go on; it can't detach from them or look into them */
	{CALL(wait4), GUARDIAN, 0, {}},
	{CALL(ptrace), GUARDIAN, 1, {IS(0, PTRACE_CONT)}},
	{CALL(ptrace), GUARDIAN, 1, {IS(0, PTRACE_LISTEN)}},
};

/* An error from a function that gives a negative error number (libseccomp). */
static enum secpool_error seccomp_error(int result, const char *what)
{
	errno = -result; /* lint: errno is where os_error looks */
	return os_error("seccomp: %s", what);
}

/* The TPM's socket or device, and nothing else by these calls. */
static int add_tpm(scmp_filter_ctx filter, int tpm)
{
	static const int calls[] = {CALL(sendto), CALL(recvfrom), CALL(read), CALL(write)};
	const struct scmp_arg_cmp args[] = {IS(0, tpm)};
	int result = 0;

	for (size_t i = 0; i < sizeof calls / sizeof *calls && result == 0; i++)
		result = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, calls[i], 1, args);
	return result;
}

static enum secpool_error add_rules(
	scmp_filter_ctx filter, enum sandbox_role role, pid_t verifier, int tpm, int store)
{
	int result = 0;

	for (size_t i = 0; i < sizeof rules / sizeof *rules && result == 0; i++)
		if (rules[i].roles & (1u << role))
			result = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, rules[i].call,
				rules[i].arg_count, rules[i].args);
	if (result == 0 && role == SANDBOX_ENCLAVE && verifier > 0) {
		const struct scmp_arg_cmp args[] = {IS(0, verifier), IS(1, SIGKILL)};
		result = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, CALL(kill), 2, args);
	}
	if (result == 0 && role == SANDBOX_ENCLAVE && tpm >= 0)
		result = add_tpm(filter, tpm);
	if (result == 0 && role == SANDBOX_ENCLAVE && store >= 0) {
		const struct scmp_arg_cmp args[] = {IS(0, store)};
		/* siblings of erased keys, to wrap them anew */
		result = seccomp_rule_add_array(filter, SCMP_ACT_ALLOW, CALL(pread64), 1, args);
	}
	return result == 0 ? SECPOOL_OK : seccomp_error(result, "adding a rule");
}

enum secpool_error sandbox_enter(enum sandbox_role role, pid_t verifier, int tpm, int store)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	enum secpool_error error = SECPOOL_E_INTERNAL;
	int result;

	if (!filter)
		return err_set(SECPOOL_E_NO_MEMORY, "seccomp: no memory for the filter");
	error = add_rules(filter, role, verifier, tpm, store);
	if (error)
		goto out;
	/* a call by another architecture's table is killed too: it would be judged by the wrong numbers */
	result = seccomp_attr_set(filter, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	if (result == 0)
		result = seccomp_load(filter);
	if (result != 0)
		error = seccomp_error(result, "loading the filter");
out:
	seccomp_release(filter);
	return error;
}

enum secpool_error sandbox_harden(void)
{
	static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
	const struct rlimit none = {0, 0};

	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
		return os_error("PR_SET_DUMPABLE");
	if (setrlimit(RLIMIT_CORE, &none) != 0)
		return os_error("RLIMIT_CORE");
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return os_error("PR_SET_NO_NEW_PRIVS");
	for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
		if (signal(ignored[i], SIG_IGN) == SIG_ERR)
			return os_error("signal %d", ignored[i]);
	return SECPOOL_OK;
}

enum secpool_error sandbox_raise_limits(unsigned fds, unsigned *ret_fds)
{
	struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};

	if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0) {
		/* not allowed: then as far as the hard limit goes */
		if (getrlimit(RLIMIT_MEMLOCK, &limit) != 0)
			return os_error("RLIMIT_MEMLOCK");
		limit.rlim_cur = limit.rlim_max;
		if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0)
			return os_error("RLIMIT_MEMLOCK");
	}
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
		return os_error("RLIMIT_NOFILE");
	if (limit.rlim_cur < fds)
		limit.rlim_cur = limit.rlim_max < fds ? limit.rlim_max : fds;
	if (setrlimit(RLIMIT_NOFILE, &limit) != 0)
		return os_error("RLIMIT_NOFILE");
	*ret_fds = limit.rlim_cur < fds ? (unsigned)limit.rlim_cur : fds;
	return SECPOOL_OK;
}

enum secpool_error sandbox_drop_capabilities(void)
{
	if (capng_get_caps_process() != 0)
		return os_error("reading the capabilities");
	/* lowering the bounding set needs CAP_SETPCAP; without, no exec gains anything: no_new_privs */
	bool bounding = capng_have_capability(CAPNG_EFFECTIVE, CAP_SETPCAP);
	capng_clear(CAPNG_SELECT_ALL);
	if (capng_apply(bounding ? CAPNG_SELECT_ALL : CAPNG_SELECT_CAPS) != 0)
		return os_error("dropping the capabilities");
	if (capng_get_caps_process() != 0 ||
		capng_have_capabilities(CAPNG_SELECT_CAPS) != CAPNG_NONE)
		return err_set(SECPOOL_E_SYSTEM, "capabilities are left after dropping them");
	return SECPOOL_OK;
}

enum secpool_error sandbox_close_all_but(int keep)
{
	if (keep > 0 && close_range(0, (unsigned)keep - 1, 0) != 0)
		return os_error("close_range");
	if (close_range((unsigned)(keep + 1), UINT_MAX, 0) != 0)
		return os_error("close_range");
	return SECPOOL_OK;
}
