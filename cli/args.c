/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/args.h"

#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/os.h"
#include "lib/base/size.h"

/* What `secpool up` makes by itself, and the bounds: a device is at most what hotplugd takes. */
enum { DEVICES_DEFAULT = 3, DEVICES_MOST = 64 };
enum { SILENT_MS_DEFAULT = 500, SILENT_MS_MOST = 30000 };
#define DEVICE_BYTES_DEFAULT (512ull << 20)
#define DEVICE_BYTES_MOST    (1ull << 40)
#define DEVICE_BYTES_UNIT    (2ull << 20)

struct known_option {
	struct option option; /* val: a bit of ARG_, or a letter beyond them */
	unsigned needs;
	const char *help;
};

enum {
	OPT_HELP = 'h',
	OPT_RUNTIME = 'r',
	OPT_JSON = 'j',
	OPT_FOLLOW = 'f',
	OPT_SILENT = 's',
	OPT_NO_WAIT = 'w',
	OPT_EVIDENCE = 'e',
	OPT_TENANT = 't',
	OPT_USER = 'u',
	OPT_ACTION = 'x',
	OPT_ANCHOR = 'a',
	OPT_AUDIT = 'l',
	OPT_RECEIPT = 'c',
	OPT_POLICY = 'p',
	OPT_STATE_DIR = '1',
	OPT_TPM = '2',
	OPT_GENERATION = '3',
	OPT_AUDIT_HEAD = '4',
	OPT_DEVICES = 'n',
	OPT_DEVICE_BYTES = 'b',
	OPT_FAULT_MODE = 'm',
	OPT_RUN = 256, /* and the enum runopts_option */
};

static const struct known_option known[] = {
	{{"help", no_argument, NULL, OPT_HELP}, 0, "--help               this text"},
	{{"runtime-dir", required_argument, NULL, OPT_RUNTIME}, ARG_RUNTIME,
		"--runtime-dir D      where the daemons' sockets are"},
	{{"json", no_argument, NULL, OPT_JSON}, ARG_JSON, "--json               for programs"},
	{{"follow", no_argument, NULL, OPT_FOLLOW}, ARG_FOLLOW,
		"--follow             go on with new ones until interrupted"},
	{{"silent", optional_argument, NULL, OPT_SILENT}, ARG_SILENT,
		"--silent [MS]        answer zeros for so long first, as real slots do (500)"},
	{{"no-wait", no_argument, NULL, OPT_NO_WAIT}, ARG_NO_WAIT,
		"--no-wait            return when it has begun"},
	{{"evidence", required_argument, NULL, OPT_EVIDENCE}, ARG_EVIDENCE,
		"--evidence DIR       write what it proved itself with there"},
	{{"tenant", required_argument, NULL, OPT_TENANT}, ARG_EXPLAIN,
		"--tenant T           of whom"},
	{{"user", required_argument, NULL, OPT_USER}, ARG_EXPLAIN,
		"--user U             who wants it: a name or a number"},
	{{"action", required_argument, NULL, OPT_ACTION}, ARG_EXPLAIN,
		"--action A           session, or create:SIZE[,REDUNDANCY[,ON_LOSS]]"},
	{{"anchor", required_argument, NULL, OPT_ANCHOR}, ARG_ANCHOR,
		"--anchor PEM         the host's attestation key, as you know it"},
	{{"audit", required_argument, NULL, OPT_AUDIT}, ARG_AUDIT,
		"--audit FILE         a copy of the audit, with FILE.anchor beside it"},
	{{"receipt", required_argument, NULL, OPT_RECEIPT}, ARG_RECEIPT,
		"--receipt FILE       a receipt that must be in the audit"},
	{{"policy", required_argument, NULL, OPT_POLICY}, ARG_POLICY,
		"--policy FILE        instead of the default policy"},
	{{"state-dir", required_argument, NULL, OPT_STATE_DIR}, ARG_STORE,
		"--state-dir DIR      the key manager's state folder"},
	{{"tpm", required_argument, NULL, OPT_TPM}, ARG_STORE,
		"--tpm WHERE          the host's TPM: unix:PATH or device:/dev/tpmrm0"},
	{{"generation", required_argument, NULL, OPT_GENERATION}, ARG_CONFIRM,
		"--generation N       that the store is of, as you know it"},
	{{"audit-head", required_argument, NULL, OPT_AUDIT_HEAD}, ARG_CONFIRM,
		"--audit-head HEX     of its audit, as you know it"},
	{{"devices", required_argument, NULL, OPT_DEVICES}, ARG_DEVICES,
		"--devices N          emulated devices (3)"},
	{{"device-bytes", required_argument, NULL, OPT_DEVICE_BYTES}, ARG_DEVICES,
		"--device-bytes SIZE  of each, a multiple of 2M (512M)"},
	{{"tenant", required_argument, NULL, OPT_RUN + RUNOPTS_TENANT}, ARG_RUN,
		"--tenant T           as whom (default)"},
	{{"local-bytes", required_argument, NULL, OPT_RUN + RUNOPTS_LOCAL_BYTES}, ARG_RUN,
		"--local-bytes SIZE   most plaintext in local memory (64M)"},
	{{"redundancy", required_argument, NULL, OPT_RUN + RUNOPTS_REDUNDANCY}, ARG_RUN,
		"--redundancy R       none, mirror:N or ec:K+M (none)"},
	{{"on-loss", required_argument, NULL, OPT_RUN + RUNOPTS_ON_LOSS}, ARG_RUN,
		"--on-loss M          failover, sigbus, signal:NAME or kill"},
	{{"fork", required_argument, NULL, OPT_RUN + RUNOPTS_FORK}, ARG_RUN,
		"--fork F             what a child has: snapshot, or deny (snapshot)"},
	{{"fault-mode", required_argument, NULL, OPT_FAULT_MODE}, ARG_RUN,
		"--fault-mode thread  the only one for programs as they are"},
};
enum { KNOWN_COUNT = sizeof known / sizeof *known };

static const char *group_of(const struct command *command)
{
	return command->group ? command->group : "";
}

void args_help(const struct command *command)
{
	printf("usage: secpool %s%s%s%s%s\n%s\n\n", group_of(command), command->group ? " " : "",
		command->name, command->usage[0] ? " " : "", command->usage, command->summary);
	for (size_t i = 0; i < KNOWN_COUNT; i++)
		if (!known[i].needs || command->options & known[i].needs)
			printf("  %s\n", known[i].help);
}

static int __attribute__((format(printf, 2, 3)))
usage_error(const struct command *command, const char *format, ...)
{
	va_list args;

	fputs("secpool: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fprintf(stderr, "\nusage: secpool %s%s%s %s\n", group_of(command),
		command->group ? " " : "", command->name, command->usage);
	return STATUS_USAGE;
}

static int read_number(const struct command *command, const char *text, uint64_t *ret_number)
{
	char *end;

	*ret_number = strtoull(text, &end, 10);
	if (text[0] < '0' || text[0] > '9' || *end || *ret_number > DEVICES_MOST)
		return usage_error(command, "--devices %s: expected a number from 0 to %d", text,
			DEVICES_MOST);
	return ARGS_RUN;
}

static int read_bytes(const struct command *command, const char *text, uint64_t *ret_bytes)
{
	if (size_parse(text, ret_bytes))
		return usage_error(command, "--device-bytes: %s", err_detail());
	if (*ret_bytes == 0 || *ret_bytes % DEVICE_BYTES_UNIT || *ret_bytes > DEVICE_BYTES_MOST)
		return usage_error(
			command, "--device-bytes %s: expected a multiple of 2M, at most 1T", text);
	return ARGS_RUN;
}

/* "--silent", "--silent=MS" or "--silent MS": a word after it that begins with a digit is its value. */
static int read_silent(const struct command *command, int argc, char **argv, uint32_t *ret_ms)
{
	const char *text = optarg;
	unsigned long long ms = SILENT_MS_DEFAULT;
	char *end;

	if (!text && optind < argc && argv[optind][0] >= '0' && argv[optind][0] <= '9')
		text = argv[optind++];
	if (text) {
		ms = strtoull(text, &end, 10);
		if (text[0] < '0' || text[0] > '9' || *end || ms == 0 || ms > SILENT_MS_MOST)
			return usage_error(command,
				"--silent %s: expected milliseconds from 1 to %d", text,
				SILENT_MS_MOST);
	}
	*ret_ms = (uint32_t)ms;
	return ARGS_RUN;
}

static int set_option(const struct command *command, int letter, int argc, char **argv,
	const char **runtime_dir, struct args *args)
{
	if (letter >= OPT_RUN && letter < OPT_RUN + RUNOPTS_OPTIONS) {
		args->run[letter - OPT_RUN] = optarg;
		return ARGS_RUN;
	}
	switch (letter) {
	case OPT_FAULT_MODE:
		args->fault_mode = optarg;
		return ARGS_RUN;
	case OPT_HELP:
		args_help(command);
		return STATUS_DONE;
	case OPT_RUNTIME:
		*runtime_dir = optarg;
		return ARGS_RUN;
	case OPT_JSON:
		args->json = true;
		return ARGS_RUN;
	case OPT_FOLLOW:
		args->follow = true;
		return ARGS_RUN;
	case OPT_SILENT:
		return read_silent(command, argc, argv, &args->silent_ms);
	case OPT_NO_WAIT:
		args->no_wait = true;
		return ARGS_RUN;
	case OPT_EVIDENCE:
		args->evidence = optarg;
		return ARGS_RUN;
	case OPT_TENANT:
		args->tenant = optarg;
		return ARGS_RUN;
	case OPT_USER:
		args->user = optarg;
		return ARGS_RUN;
	case OPT_ACTION:
		args->action = optarg;
		return ARGS_RUN;
	case OPT_ANCHOR:
		args->anchor = optarg;
		return ARGS_RUN;
	case OPT_AUDIT:
		args->audit = optarg;
		return ARGS_RUN;
	case OPT_RECEIPT:
		args->receipt = optarg;
		return ARGS_RUN;
	case OPT_POLICY:
		args->policy = optarg;
		return ARGS_RUN;
	case OPT_STATE_DIR:
		args->state_dir = optarg;
		return ARGS_RUN;
	case OPT_TPM:
		args->tpm = optarg;
		return ARGS_RUN;
	case OPT_GENERATION:
		args->generation = optarg;
		return ARGS_RUN;
	case OPT_AUDIT_HEAD:
		args->audit_head = optarg;
		return ARGS_RUN;
	case OPT_DEVICES:
		return read_number(command, optarg, &args->devices);
	case OPT_DEVICE_BYTES:
		return read_bytes(command, optarg, &args->device_bytes);
	default:
		return STATUS_USAGE;
	}
}

/* The runtime folder as an absolute path: the daemons work in another folder than we. */
static enum secpool_error find_runtime(const char *given, char runtime[PATH_MAX])
{
	char here[PATH_MAX], absolute[PATH_MAX];
	enum secpool_error error = os_runtime_dir(given, runtime, PATH_MAX);

	if (error || runtime[0] == '/')
		return error;
	if (!getcwd(here, sizeof here))
		return os_error("this folder");
	if (snprintf(absolute, sizeof absolute, "%s/%s", here, runtime) >= (int)sizeof absolute)
		return err_set(SECPOOL_E_LIMIT, "runtime folder %.100s is too long", runtime);
	return os_runtime_dir(absolute, runtime, PATH_MAX);
}

int args_parse(const struct command *command, const char *runtime_dir, int argc, char **argv,
	struct args *ret_args)
{
	struct option options[KNOWN_COUNT + 1];
	struct args args = {.devices = DEVICES_DEFAULT, .device_bytes = DEVICE_BYTES_DEFAULT};
	size_t count = 0;
	bool takes_rest = command->options & ARG_REST;
	int letter, status = ARGS_RUN;

	memset(options, 0, sizeof options);
	for (size_t i = 0; i < KNOWN_COUNT; i++)
		if (!known[i].needs || command->options & known[i].needs)
			options[count++] = known[i].option;
	optind = 0; /* getopt_long(3): start over */
	opterr = 0;
	while (status == ARGS_RUN &&
		(letter = getopt_long(argc, argv, takes_rest ? "+:" : ":", options, NULL)) != -1) {
		if (letter == '?')
			return usage_error(command, "'%s' is no option of this command",
				argv[optind > 0 ? optind - 1 : 0]);
		if (letter == ':')
			return usage_error(command, "'%s' needs a value", argv[optind - 1]);
		status = set_option(command, letter, argc, argv, &runtime_dir, &args);
	}
	if (status != ARGS_RUN)
		return status;
	if (takes_rest ? argc - optind < command->words : argc - optind != command->words)
		return usage_error(command,
			argc - optind < command->words ? "something is missing after '%s'"
						       : "there is too much after '%s'",
			command->name);
	args.words = argv + optind;
	if (command->options & ARG_RUNTIME && find_runtime(runtime_dir, args.runtime))
		return command_failed(SECPOOL_E_INVALID);
	*ret_args = args;
	return ARGS_RUN;
}
