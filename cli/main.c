/* SPDX-License-Identifier: Apache-2.0 */
/* The `secpool` command: the table of its commands, and help. */
#include <stdio.h>
#include <string.h>

#include "cli/args.h"
#include "cli/commands.h"

static const struct command commands[] = {
	{NULL, "up", ARG_RUNTIME | ARG_DEVICES | ARG_POLICY, 0,
		"[--devices N] [--device-bytes SIZE] [--policy FILE]",
		"Starts the daemons with a software TPM and emulated devices; returns when they "
		"are ready.",
		command_up},
	{NULL, "down", ARG_RUNTIME, 0, "",
		"Stops what `secpool up` started and removes what it made.", command_down},
	{NULL, "run", ARG_RUNTIME | ARG_RUN | ARG_REST, 1, "[OPTIONS] -- PROGRAM [ARGS]",
		"Runs a program as it is, with its memory in the pool; secpool-run(1) says more.",
		command_run},
	{NULL, "status", ARG_RUNTIME | ARG_JSON, 0, "[--json]",
		"Shows the daemons, what the key manager says of itself, and the devices in short.",
		command_status},
	{NULL, "top", ARG_RUNTIME, 0, "",
		"Shows regions with their rebuilds, and devices, again every second.", command_top},
	{"policy", "check", 0, 1, "FILE",
		"Reads a policy file and says whether it is valid; an error has its line.",
		command_policy_check},
	{"policy", "explain", ARG_RUNTIME | ARG_POLICY | ARG_EXPLAIN, 0,
		"--tenant T --user U --action A [--policy FILE]",
		"Says what the policy decides, and by which rule; exit status 3 when it refuses.",
		command_policy_explain},
	{"device", "list", ARG_RUNTIME | ARG_JSON, 0, "[--json]",
		"Lists the devices with their state, space, and the reason for the state.",
		command_device_list},
	{"device", "pull", ARG_RUNTIME | ARG_SILENT, 1, "ID [--silent [MS]]",
		"Takes an emulated device away, at once and without asking.", command_device_pull},
	{"device", "plug", ARG_RUNTIME, 1, "ID",
		"Puts a pulled emulated device back; returns when it is online or refused.",
		command_device_plug},
	{"device", "attest", ARG_RUNTIME | ARG_EVIDENCE, 1, "ID [--evidence DIR]",
		"Asks a device for fresh evidence; returns with the verdict.",
		command_device_attest},
	{"device", "enrol", ARG_RUNTIME, 1, "ID",
		"Takes in a device that was refused for who it is, with the TPM that it proved; "
		"returns with the verdict.",
		command_device_enrol},
	{"device", "drain", ARG_RUNTIME | ARG_NO_WAIT, 1, "ID [--no-wait]",
		"Moves everything off a device; returns when it is offline and may be taken out.",
		command_device_drain},
	{"device", "scrub", ARG_RUNTIME | ARG_NO_WAIT, 1, "ID [--no-wait]",
		"Overwrites again all of a device that no region uses; says what was done.",
		command_device_scrub},
	{"device", "retire", ARG_RUNTIME | ARG_NO_WAIT, 1, "ID [--no-wait]",
		"Has a drained CXL device sanitise itself, before it leaves the machine.",
		command_device_retire},
	{"device", "inject", ARG_RUNTIME, 2,
		"ID corrupt[:N]|slow:MS|stuck|flap[:N]|short|poison|normal",
		"Makes an emulated device misbehave, for tests; secpool(1) says how.",
		command_device_inject},
	{"region", "list", ARG_RUNTIME | ARG_JSON, 0, "[--json]",
		"Lists the regions with their owners and places.", command_region_list},
	{"tenant", "list", ARG_RUNTIME | ARG_JSON, 0, "[--json]",
		"Lists the policy's tenants with what they use of their quotas.",
		command_tenant_list},
	{"tenant", "rotate", ARG_RUNTIME | ARG_NO_WAIT, 1, "T [--no-wait]",
		"Gives all regions of a tenant new keys; returns when the old ones are destroyed.",
		command_tenant_rotate},
	{NULL, "events", ARG_RUNTIME | ARG_JSON | ARG_FOLLOW, 0, "[--follow] [--json]",
		"Shows what happened: devices, regions, losses, refusals.", command_events},
	{"keystore", "anchor", ARG_RUNTIME, 0, "",
		"Makes all destruction of keys until now durable; returns when no older copy of "
		"the key store gives one back.",
		command_keystore_anchor},
	{"keystore", "provision", ARG_RUNTIME | ARG_POLICY | ARG_STORE, 0,
		"[--state-dir DIR] [--policy FILE] [--tpm WHERE]",
		"Makes the key store, and shows its recovery key, which is kept nowhere else.",
		command_keystore_provision},
	{"keystore", "recover", ARG_RUNTIME | ARG_POLICY | ARG_STORE | ARG_CONFIRM, 0,
		"--generation N --audit-head HEX [--state-dir DIR] [--policy FILE] [--tpm WHERE]",
		"Moves the key store to another TPM, by its recovery key from standard input; "
		"shows a new one.",
		command_keystore_recover},
	{"receipt", "get", ARG_RUNTIME, 1, "NUMBER",
		"Prints a release receipt as it stands now: durable or not.", command_receipt_get},
	{"audit", "verify", ARG_RUNTIME | ARG_JSON | ARG_ANCHOR | ARG_AUDIT | ARG_RECEIPT, 0,
		"[--audit FILE] [--anchor PEM] [--receipt FILE] [--json]",
		"Checks the audit offline: changed, removed or reordered records, and those "
		"missing at the end.",
		command_audit_verify},
	{"audit", "list", ARG_RUNTIME | ARG_JSON | ARG_AUDIT, 0, "[--audit FILE] [--json]",
		"Lists the records of the audit, each checked.", command_audit_list},
	{"receipt", "verify", ARG_JSON | ARG_ANCHOR, 1, "FILE [--anchor PEM] [--json]",
		"Checks a release receipt offline and says what it states.",
		command_receipt_verify},
};
enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

/* All commands, or those of one group. */
static void print_commands(FILE *out, const char *group)
{
	fprintf(out, "usage: secpool [--runtime-dir D] COMMAND ...\n\n");
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		const struct command *c = &commands[i];
		char words[32];

		if (group && (!c->group || strcmp(c->group, group) != 0))
			continue;
		snprintf(words, sizeof words, "%s%s%s", c->group ? c->group : "",
			c->group ? " " : "", c->name);
		fprintf(out, "  %-15s %s\n", words, c->summary);
	}
	fprintf(out, "\n'secpool COMMAND --help' says more. Exit status: 0 done, 1 failed, 2 wrong "
		     "usage, 3 refused by policy.\n");
}

static bool is_group(const char *word)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++)
		if (commands[i].group && strcmp(commands[i].group, word) == 0)
			return true;
	return false;
}

static const struct command *find_command(const char *first, const char *second)
{
	for (size_t i = 0; i < COMMAND_COUNT; i++) {
		const struct command *c = &commands[i];

		if (c->group ? second && strcmp(c->group, first) == 0 &&
					strcmp(c->name, second) == 0
			     : strcmp(c->name, first) == 0)
			return c;
	}
	return NULL;
}

static int unknown_command(const char *first, const char *second)
{
	const char *group = is_group(first) ? first : NULL;

	if (group && second && strcmp(second, "--help") == 0) {
		print_commands(stdout, group);
		return STATUS_DONE;
	}
	if (group && !second)
		fprintf(stderr, "secpool: '%s' needs a command after it\n\n", first);
	else
		fprintf(stderr, "secpool: there is no command '%s%s%s'\n\n", first,
			group ? " " : "", group ? second : "");
	print_commands(stderr, group);
	return STATUS_USAGE;
}

int main(int argc, char **argv)
{
	const char *runtime_dir = NULL;
	const struct command *command;
	struct args args;
	int at = 1, status;

	for (; at < argc && strncmp(argv[at], "--", 2) == 0; at++) {
		if (strcmp(argv[at], "--help") == 0) {
			print_commands(stdout, NULL);
			return STATUS_DONE;
		} else if (strcmp(argv[at], "--version") == 0) {
			puts("secpool " SECPOOL_VERSION);
			return STATUS_DONE;
		} else if (strcmp(argv[at], "--runtime-dir") == 0 && at + 1 < argc) {
			runtime_dir = argv[++at];
		} else if (strncmp(argv[at], "--runtime-dir=", 14) == 0) {
			runtime_dir = argv[at] + 14;
		} else {
			fprintf(stderr, "secpool: '%s' is no option before a command\n", argv[at]);
			return STATUS_USAGE;
		}
	}
	if (at == argc) {
		print_commands(stderr, NULL);
		return STATUS_USAGE;
	}
	command = find_command(argv[at], at + 1 < argc ? argv[at + 1] : NULL);
	if (!command)
		return unknown_command(argv[at], at + 1 < argc ? argv[at + 1] : NULL);
	at += command->group != NULL;
	status = args_parse(command, runtime_dir, argc - at, argv + at, &args);
	if (status == ARGS_RUN)
		status = command->run(&args);
	if (fflush(stdout) != 0 && status == STATUS_DONE)
		status = STATUS_FAILED;
	return status;
}
