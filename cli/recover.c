/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `secpool keystore provision` and `recover`: one start of secpool-keymgrd, which ends when the store is made, or moved. The recovery key passes from the enclave to our standard output, or from our standard input to the enclave;
 * nothing of it is in this process, its arguments or its environment.
 */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/spawn.h"
#include "lib/base/os.h"

enum { ARGV_MOST = 20, NUMBER_BYTES = 16, PASSED_FD_LEAST = 10, CONFIRM_BYTES = 160 };

struct run {
	char program[PATH_MAX], state[PATH_MAX], policy[PATH_MAX], tpm[PATH_MAX];
	char out[NUMBER_BYTES], in[NUMBER_BYTES], confirm[CONFIRM_BYTES];
	char *argv[ARGV_MOST];
};

/* Where things are: as said, else the embedded default's, where there is one, else the system's. */
static enum secpool_error find(const struct args *args, struct run *run)
{
	char embedded[PATH_MAX];
	bool has = snprintf(embedded, sizeof embedded, "%s/state", args->runtime) < PATH_MAX &&
		   access(embedded, F_OK) == 0;
	const char *base = has ? args->runtime : "";
	int state, policy, tpm;

	state = snprintf(run->state, PATH_MAX, "%s%s", args->state_dir ? args->state_dir : base,
		args->state_dir ? ""
		: has		? "/state"
				: "/var/lib/secpool");
	policy = snprintf(run->policy, PATH_MAX, "%s%s", args->policy ? args->policy : base,
		args->policy ? ""
		: has	     ? "/policy.yaml"
			     : "/etc/secpool/policy.yaml");
	tpm = snprintf(run->tpm, PATH_MAX, "%s%s%s",
		args->tpm || !has ? "" : "unix:", args->tpm ? args->tpm : base,
		args->tpm ? ""
		: has	  ? "/tpm.sock"
			  : "device:/dev/tpmrm0");
	if (state >= PATH_MAX || policy >= PATH_MAX || tpm >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "the key store's paths are too long");
	return spawn_find_program(SPAWN_KEYMGRD, run->program);
}

static void add(struct run *run, const char *option, char *value)
{
	size_t at = 0;

	while (run->argv[at])
		at++;
	run->argv[at++] = (char *)option;
	run->argv[at] = value;
}

static enum secpool_error prepare(const struct args *args, bool recover, struct run *run)
{
	enum secpool_error error = find(args, run);
	int out = fcntl(STDOUT_FILENO, F_DUPFD, PASSED_FD_LEAST), in = -1;

	if (!error && recover)
		in = fcntl(STDIN_FILENO, F_DUPFD, PASSED_FD_LEAST);
	if (!error && (out < 0 || (recover && in < 0)))
		error = os_error("standard input and output must be open");
	if (!error)
		error = os_make_dir(args->runtime, 0755);
	if (error)
		return error;
	snprintf(run->out, sizeof run->out, "%d", out);
	snprintf(run->in, sizeof run->in, "%d", in);
	run->argv[0] = run->program;
	add(run, "--runtime-dir", (char *)args->runtime);
	add(run, "--state-dir", run->state);
	add(run, "--policy", run->policy);
	add(run, "--tpm", run->tpm);
	add(run, "--recovery-fd", run->out);
	if (recover) {
		if (snprintf(run->confirm, sizeof run->confirm, "%s:%s", args->generation,
			    args->audit_head) >= (int)sizeof run->confirm)
			return err_set(SECPOOL_E_INVALID, "--generation and --audit-head");
		add(run, "--recover", run->confirm);
		add(run, "--key-fd", run->in);
	}
	add(run, "--once", NULL);
	return SECPOOL_OK;
}

/* A key that is typed is not shown. shown: how the terminal was; *ret_hidden: it is one, and hides. Errors: SECPOOL_E_SYSTEM: it can't hide it. */
static enum secpool_error hide_typing(struct termios *shown, bool *ret_hidden)
{
	struct termios hidden;

	if (!isatty(STDIN_FILENO))
		return SECPOOL_OK;
	if (tcgetattr(STDIN_FILENO, shown) != 0)
		return os_error("the terminal can't be asked whether it shows what is typed");
	hidden = *shown;
	hidden.c_lflag &= ~(tcflag_t)ECHO;
	/* it succeeds too where it did a part of it */
	if (tcsetattr(STDIN_FILENO, TCSAFLUSH, &hidden) != 0 ||
		tcgetattr(STDIN_FILENO, &hidden) != 0)
		return os_error("the terminal would show the recovery key");
	if (hidden.c_lflag & (tcflag_t)ECHO)
		return err_set(SECPOOL_E_SYSTEM, "the terminal would show the recovery key");
	*ret_hidden = true;
	return SECPOOL_OK;
}

/* Its exit status. What would end us meanwhile ends the daemon, and the terminal is put back; nothing stops the two of them while it hides. */
static int run_keymgrd(struct run *run, bool recover)
{
	static const int ending[] = {SIGINT, SIGTERM, SIGQUIT};
	enum { ENDING_COUNT = sizeof ending / sizeof *ending };
	enum secpool_error error = SECPOOL_OK;
	bool hidden = false;
	struct termios shown;
	int status = 0;
	pid_t pid;

	for (size_t i = 0; i < ENDING_COUNT; i++)
		signal(ending[i], SIG_IGN);
	signal(SIGTSTP, SIG_IGN);
	if (recover)
		error = hide_typing(&shown, &hidden);
	if (error)
		return command_failed(error);
	if (hidden)
		fputs("recovery key: ", stderr);
	pid = fork();
	if (pid == 0) {
		for (size_t i = 0; i < ENDING_COUNT; i++)
			signal(ending[i], SIG_DFL);
		execv(run->program, run->argv);
		_exit(127);
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && os_interrupted())
		;
	if (hidden && tcsetattr(STDIN_FILENO, TCSAFLUSH, &shown) != 0)
		fputs("secpool: the terminal still hides what is typed: stty echo\n", stderr);
	return pid > 0 && WIFEXITED(status) ? WEXITSTATUS(status) : STATUS_FAILED;
}

static int start_once(const struct args *args, bool recover)
{
	struct run run = {.argv = {NULL}};
	enum secpool_error error = prepare(args, recover, &run);

	if (error)
		return command_failed(error);
	return run_keymgrd(&run, recover) == 0 ? STATUS_DONE : STATUS_FAILED;
}

/* It failed before the store was made, or after that, when it was looked at once more: nobody can tell here. */
static void tell_of_shown_key(void)
{
	fputs("If a line SPR1-... was shown, keep that key and the one before, if there was one: "
	      "the next start of the daemon shows whether the store is of the new one "
	      "already.\n",
		stderr);
}

int command_keystore_provision(const struct args *args)
{
	int status = start_once(args, false);

	if (status == STATUS_DONE)
		fputs("the key store is there. If a line SPR1-... was shown, that is its recovery "
		      "key, and it will never be shown again: keep it on paper, away from this "
		      "host.\nWhoever has it and a copy of the state folder has every key in "
		      "that.\n",
			stderr);
	else
		tell_of_shown_key();
	return status;
}

int command_keystore_recover(const struct args *args)
{
	int status;

	if (!args->generation || !args->audit_head) {
		fputs("secpool: --generation and --audit-head are needed, as you know them from "
		      "the newest receipt (the generation of one that says 'durable: yes'; one "
		      "that says 'no' names the next) and a copy of the audit (secpool audit "
		      "verify --receipt): a recovery can't tell whether the store is the newest\n",
			stderr);
		return STATUS_USAGE;
	}
	status = start_once(args, true);
	if (status == STATUS_DONE)
		fputs("the key store is this TPM's now. The line SPR1-... is its new recovery "
		      "key, unless the policy says 'recovery: none'; the old one opens only "
		      "copies from before.\nClear the old TPM (tpm2_clear) before anybody else "
		      "gets it: with a copy from before it still opens that.\nThe audit says "
		      "'freshness: asserted'. What was released before is 'durable: no' by this "
		      "TPM, whatever was said of it by the old one.\n",
			stderr);
	else
		tell_of_shown_key();
	return status;
}
