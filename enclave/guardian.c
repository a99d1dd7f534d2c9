/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/guardian.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "enclave/sandbox.h"
#include "lib/base/clock.h"
#include "lib/base/log.h"
#include "lib/base/os.h"
#include "lib/wire/sock.h"

#define TELL_NS CLOCK_NS_PER_S
enum { STATUS_BYTES_MOST = 1 << 16 };

/* The child of the guardian waits here until it is held, then becomes the enclave. */
static _Noreturn void become_enclave(int held, char *const argv[], char *const envp[])
{
	char byte;

	if (read(held, &byte, 1) == 1)
		execve("/proc/self/exe", argv, envp);
	_exit(127);
}

/* Makes the child go into the enclave's program only after it is our tracee. */
static enum secpool_error hold(pid_t enclave, int release)
{
	/* its forks too: the verifier's facts must not come from a debugger either */
	const long options =
		PTRACE_O_EXITKILL | PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK | PTRACE_O_TRACECLONE;

	if (ptrace(PTRACE_SEIZE, enclave, NULL, options) != 0)
		return os_error("the guardian can't hold the enclave (ptrace)");
	return os_write_all(release, "h", 1);
}

static bool is_group_stop(int status)
{
	int signal_number = WSTOPSIG(status);

	/* ptrace(2), "Group-stop": PTRACE_EVENT_STOP with a stopping signal */
	return status >> 16 == PTRACE_EVENT_STOP &&
	       (signal_number == SIGSTOP || signal_number == SIGTSTP || signal_number == SIGTTIN ||
		       signal_number == SIGTTOU);
}

/* Lets tracees go on, handing them their signals, until the enclave has ended. Returns its exit status. */
static int watch(pid_t enclave)
{
	for (;;) {
		int status = 0;
		pid_t pid = waitpid(-1, &status, __WALL);

		if (pid < 0 && os_interrupted())
			continue;
		if (pid < 0)
			return 1;
		if (pid == enclave && WIFEXITED(status))
			return WEXITSTATUS(status);
		if (pid == enclave && WIFSIGNALED(status))
			return 128 + WTERMSIG(status);
		if (!WIFSTOPPED(status))
			continue;
		/* a tracee that was killed meanwhile is no error: its end comes next */
		if (is_group_stop(status))
			(void)ptrace(PTRACE_LISTEN, pid, NULL, 0);
		else if (status >> 16 != 0)
			(void)ptrace(PTRACE_CONT, pid, NULL, 0);
		else
			(void)ptrace(PTRACE_CONT, pid, NULL, (long)WSTOPSIG(status));
	}
}

/* Forks the enclave and holds it; *ret_enclave is then running its own program. */
static enum secpool_error start_enclave(char *const argv[], char *const envp[], pid_t *ret_enclave)
{
	enum secpool_error error;
	int ends[2];
	pid_t pid;

	if (pipe2(ends, O_CLOEXEC) != 0)
		return os_error("pipe");
	pid = fork();
	if (pid < 0) {
		error = os_error("fork the enclave");
	} else if (pid == 0) {
		os_close(&ends[1]);
		become_enclave(ends[0], argv, envp);
	} else {
		error = hold(pid, ends[1]);
		*ret_enclave = pid;
	}
	os_close(&ends[0]);
	os_close(&ends[1]);
	return error;
}

_Noreturn void guardian_run(
	pid_t starter, int socket, char *const enclave_argv[], char *const envp[])
{
	enum secpool_error error = SECPOOL_OK;
	pid_t enclave = 0;

	/* PR_SET_PDEATHSIG first, then the check: a starter that died in between is seen by one of them */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) != 0)
		error = os_error("PR_SET_PDEATHSIG");
	if (getppid() != starter)
		_exit(1);
	if (!error)
		error = start_enclave(enclave_argv, envp, &enclave);
	/* only now: a child of a process that is not dumpable could not be held by an ordinary user */
	if (!error)
		error = sandbox_harden();
	if (!error)
		error = sandbox_drop_capabilities();
	if (error) {
		/* the exit status says it too, if the front does not listen */
		_exit(sock_reply(socket, 0, error, clock_now_ns() + TELL_NS) ? 2 : 1);
	}
	if (sandbox_close_all_but(-1) || sandbox_enter(SANDBOX_GUARDIAN, 0, -1, -1))
		_exit(1);
	_exit(watch(enclave));
}

enum secpool_error guardian_check(void)
{
	char *text = NULL;
	size_t bytes = 0;
	enum secpool_error error =
		os_read_file("/proc/self/status", STATUS_BYTES_MOST, &text, &bytes);
	const char *line;

	if (error)
		return error;
	line = strstr(text, "\nTracerPid:");
	if (!line || strtol(line + strlen("\nTracerPid:"), NULL, 10) != (long)getppid())
		error = err_set(SECPOOL_E_SYSTEM,
			"the enclave is not held by its guardian: another tracer, or none, has it");
	free(text);
	return error;
}
