/* SPDX-License-Identifier: Apache-2.0 */
/* secpool-vtpm: a TPM 2.0 in software over a unix socket (secpool-vtpm(8)). */
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "enclave/vtpm/serve.h"
#include "enclave/vtpm/state.h"
#include "enclave/vtpm/tpm20.h"
#include "lib/base/log.h"
#include "lib/base/os.h"

enum { EXIT_USAGE = 2, EXTENDS_MOST = 32, FREED_BYTE = 0xa5 };

struct extend {
	unsigned pcr;
	const char *text;
};

struct options {
	const char *state, *socket;
	bool provision;
	unsigned extend_count;
	struct extend extends[EXTENDS_MOST];
};

static const char USAGE[] =
	"usage: secpool-vtpm --state DIR --socket PATH [--provision] [--extend PCR:TEXT]...\n"
	"  --state DIR        folder of the TPM's state\n"
	"  --socket PATH      where to listen\n"
	"  --provision        make a new TPM if there is no state yet\n"
	"  --extend PCR:TEXT  at start, extend a PCR's SHA-256 bank with the SHA-256 of TEXT\n";

static _Noreturn void usage(const char *problem, const char *what)
{
	fprintf(stderr, "secpool-vtpm: %s%s\n%s", problem, what, USAGE);
	exit(EXIT_USAGE);
}

static void add_extend(struct options *options, const char *argument)
{
	char *end;
	unsigned long pcr = strtoul(argument, &end, 10);

	if (argument[0] < '0' || argument[0] > '9' || *end != ':' || pcr >= TPM20_PCRS)
		usage("--extend needs PCR:TEXT with a PCR from 0 to 23, not ", argument);
	if (options->extend_count == EXTENDS_MOST)
		usage("too many --extend, the last was ", argument);
	options->extends[options->extend_count++] =
		(struct extend){.pcr = (unsigned)pcr, .text = end + 1};
}

static struct options parse(int argc, char **argv)
{
	static const struct option longs[] = {
		{"state", required_argument, NULL, 's'},
		{"socket", required_argument, NULL, 'S'},
		{"provision", no_argument, NULL, 'p'},
		{"extend", required_argument, NULL, 'e'},
		{"help", no_argument, NULL, 'h'},
		{"version", no_argument, NULL, 'V'},
		{NULL, 0, NULL, 0},
	};
	struct options options = {.state = NULL};
	int option;

	while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
		if (option == 's')
			options.state = optarg;
		else if (option == 'S')
			options.socket = optarg;
		else if (option == 'p')
			options.provision = true;
		else if (option == 'e')
			add_extend(&options, optarg);
		else if (option == 'h' || option == 'V') {
			fputs(option == 'h' ? USAGE : "secpool-vtpm " SECPOOL_VERSION "\n", stdout);
			exit(EXIT_SUCCESS);
		} else
			usage("see above", "");
	}
	if (optind < argc)
		usage("unexpected argument ", argv[optind]);
	if (!options.state || !options.state[0])
		usage("--state is missing", "");
	if (!options.socket || !options.socket[0])
		usage("--socket is missing", "");
	return options;
}

/* The TPM's seeds stay out of core files, swap, other processes' reach and freed memory. */
static enum secpool_error harden(void)
{
	struct rlimit none = {0, 0};

	if (prctl(PR_SET_DUMPABLE, 0) != 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		return os_error("prctl");
	if (setrlimit(RLIMIT_CORE, &none) != 0)
		return os_error("setrlimit(RLIMIT_CORE)");
	if (mallopt(M_PERTURB, FREED_BYTE) != 1) /* another malloc, as a sanitizer's */
		log_event(LOG_LEVEL_WARNING, "freed-memory-not-overwritten", "malloc=foreign");
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) != 0)
		return err_set(SECPOOL_E_NO_LOCKED_MEMORY,
			"the TPM's memory can't be locked: raise RLIMIT_MEMLOCK (ulimit -l)");
	return SECPOOL_OK;
}

/* SIGTERM and SIGINT as something to poll. */
static enum secpool_error watch_signals(int *ret_fd)
{
	sigset_t stops;
	int fd;

	sigemptyset(&stops);
	sigaddset(&stops, SIGTERM);
	sigaddset(&stops, SIGINT);
	if (sigprocmask(SIG_BLOCK, &stops, NULL) != 0)
		return os_error("sigprocmask");
	fd = signalfd(-1, &stops, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return os_error("signalfd");
	*ret_fd = fd;
	return SECPOOL_OK;
}

/* Measures, then listens: whoever can connect finds the PCRs extended. */
static enum secpool_error serve(const struct options *options, int stop_fd)
{
	enum secpool_error error = SECPOOL_OK;
	int listener = -1;

	for (unsigned i = 0; i < options->extend_count && !error; i++)
		error = tpm20_extend(options->extends[i].pcr, options->extends[i].text);
	if (!error)
		error = serve_listen(options->socket, &listener);
	if (error)
		return error;
	log_event(LOG_LEVEL_INFO, "ready", "socket=%s state=%s", options->socket, options->state);
	error = serve_run(listener, stop_fd);
	unlink(options->socket);
	os_close(&listener);
	return error;
}

int main(int argc, char **argv)
{
	struct options options = parse(argc, argv);
	enum secpool_error error, stopped;
	struct state *state = NULL;
	int stop_fd = -1;

	log_init("secpool-vtpm", LOG_LEVEL_INFO);
	error = harden();
	if (!error)
		error = watch_signals(&stop_fd);
	if (!error)
		error = state_open(options.state, options.provision, &state);
	if (!error)
		error = tpm20_start(state);
	if (!error) {
		error = serve(&options, stop_fd);
		if (error)
			log_error("failed", error);
		stopped = tpm20_stop();
		if (stopped)
			log_error("shutdown-refused", stopped);
		error = error ? error : stopped;
	} else {
		log_error("not-started", error);
	}
	state_close(state);
	os_close(&stop_fd);
	if (!error)
		log_event(LOG_LEVEL_INFO, "ended", "state=%s", options.state);
	return error ? EXIT_FAILURE : EXIT_SUCCESS;
}
