/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/arguments.h"

#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { STATUS_USAGE = 2 };

static void show_usage(FILE *to)
{
	fputs("usage: secpool-keymgrd --runtime-dir DIR --state-dir DIR --policy FILE --tpm WHERE "
	      "[--new-audit] [--once] [--recovery-fd N] [--recover GENERATION:HEAD --key-fd N]\n"
	      "  --runtime-dir DIR  where keymgr.sock is made\n"
	      "  --state-dir DIR    directory.db, root.sealed and what else must survive\n"
	      "  --policy FILE      who may be which tenant (secpool-policy(5))\n"
	      "  --tpm WHERE        unix:PATH of secpool-vtpm, or device:/dev/tpmrm0\n"
	      "  --new-audit        begin a new audit where the old one was lost or moved away\n"
	      "  --once             end in order when everything is ready\n"
	      "  --recovery-fd N    the descriptor that a new recovery key is written to\n"
	      "  --recover G:HEAD   move the store to this TPM (secpool keystore recover)\n"
	      "  --key-fd N         the descriptor that the recovery key is read from\n",
		to);
}

/* A descriptor that the starter left open, from now on for this process only; 0 for what is none, as after a start in place. */
static int inherited(const char *text)
{
	char *end = NULL;
	long fd = strtol(text, &end, 10);

	if (*text == '\0' || *end != '\0' || fd <= STDERR_FILENO || fd > INT_MAX ||
		fcntl((int)fd, F_SETFD, FD_CLOEXEC) != 0)
		return 0;
	return (int)fd;
}

int arguments_read(int argc, char **argv, struct arguments *arguments)
{
	static const struct option options[] = {{"runtime-dir", required_argument, NULL, 'r'},
		{"state-dir", required_argument, NULL, 's'},
		{"policy", required_argument, NULL, 'p'}, {"tpm", required_argument, NULL, 't'},
		{"new-audit", no_argument, NULL, 'a'}, {"once", no_argument, NULL, 'o'},
		{"recovery-fd", required_argument, NULL, 'f'},
		{"recover", required_argument, NULL, 'c'}, {"key-fd", required_argument, NULL, 'k'},
		{"help", no_argument, NULL, 'h'}, {"version", no_argument, NULL, 'v'},
		{NULL, 0, NULL, 0}};
	int option;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'r':
			arguments->runtime_dir = optarg;
			break;
		case 's':
			arguments->state_dir = optarg;
			break;
		case 'p':
			arguments->policy = optarg;
			break;
		case 't':
			arguments->tpm = optarg;
			break;
		case 'a':
			arguments->new_audit = true;
			break;
		case 'o':
			arguments->once = true;
			break;
		case 'f':
			arguments->recovery_fd = inherited(optarg);
			break;
		case 'c':
			arguments->recover = optarg;
			break;
		case 'k':
			arguments->key_fd = inherited(optarg);
			break;
		case 'h':
			show_usage(stdout);
			return 0;
		case 'v':
			puts("secpool-keymgrd " SECPOOL_VERSION);
			return 0;
		default:
			show_usage(stderr);
			return STATUS_USAGE;
		}
	}
	if (optind == argc && arguments->runtime_dir && arguments->state_dir && arguments->policy &&
		arguments->tpm)
		return -1;
	fputs("secpool-keymgrd: --runtime-dir, --state-dir, --policy and --tpm are all needed\n",
		stderr);
	show_usage(stderr);
	return STATUS_USAGE;
}
