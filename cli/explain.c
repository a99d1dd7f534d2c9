/* SPDX-License-Identifier: Apache-2.0 */
/* `secpool policy explain`: the daemon's own decisions (policy/decide.c), and the rule behind each. */
#include <fcntl.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "lib/base/os.h"
#include "lib/base/size.h"
#include "lib/wire/msg.h"
#include "policy/policy.h"

enum { PARTS_MOST = 3 };

/* What is asked: a session, or a region of this size and shape. */
struct action {
	bool creates;
	uint64_t bytes;
	uint32_t data, lanes, on_loss;
};

/* "session", or "create:SIZE[,REDUNDANCY[,ON_LOSS]]". */
static enum secpool_error parse_action(const char *text, struct action *action)
{
	static const char prefix[] = "create:";
	char copy[96], *rest = copy, *parts[PARTS_MOST] = {NULL};
	size_t count = 0;

	*action = (struct action){.data = 1, .lanes = 1};
	if (strcmp(text, "session") == 0)
		return SECPOOL_OK;
	if (strncmp(text, prefix, sizeof prefix - 1) == 0 &&
		snprintf(copy, sizeof copy, "%s", text + sizeof prefix - 1) < (int)sizeof copy)
		while (rest && count < PARTS_MOST)
			parts[count++] = strsep(&rest, ",");
	if (count == 0 || rest || size_parse(parts[0], &action->bytes) ||
		(parts[1] && !msg_redundancy_read(parts[1], &action->data, &action->lanes)) ||
		(parts[2] && (action->on_loss = msg_on_loss_read(parts[2])) == 0))
		return err_set(SECPOOL_E_INVALID,
			"--action %.60s: expected 'session' or 'create:SIZE,REDUNDANCY,ON_LOSS', "
			"as "
			"create:1G,mirror:2,failover",
			text);
	action->creates = true;
	if (action->on_loss == 0)
		action->on_loss = action->lanes > 1 ? MSG_ON_LOSS_FAILOVER : MSG_ON_LOSS_SIGBUS;
	return SECPOOL_OK;
}

/* A name, or a number with whatever primary group it has here. */
static enum secpool_error find_user(const char *text, uint32_t *ret_uid, uint32_t *ret_gid)
{
	const struct passwd *entry = getpwnam(text);
	char *end = NULL;
	unsigned long uid;

	if (!entry) {
		uid = strtoul(text, &end, 10);
		if (text[0] < '0' || text[0] > '9' || *end || uid >= UINT32_MAX)
			return err_set(
				SECPOOL_E_NOT_FOUND, "--user %.60s: there is no such user", text);
		entry = getpwuid((uid_t)uid);
		*ret_uid = (uint32_t)uid;
	} else {
		*ret_uid = entry->pw_uid;
	}
	*ret_gid = entry ? entry->pw_gid : UINT32_MAX;
	return SECPOOL_OK;
}

static enum secpool_error load(const struct args *args, const char **ret_name, char name[PATH_MAX],
	struct policy **ret_policy)
{
	enum secpool_error error;
	int fd;

	if (args->policy)
		snprintf(name, PATH_MAX, "%s", args->policy);
	else if (snprintf(name, PATH_MAX, "%.4000s/policy.yaml", args->runtime) >= PATH_MAX)
		return err_set(SECPOOL_E_LIMIT, "path too long");
	fd = open(name, O_RDONLY | O_CLOEXEC | O_NOCTTY);
	error = fd < 0 ? os_error("%s (--policy FILE names another)", name)
		       : policy_load_fd(fd, name, ret_policy);
	os_close(&fd);
	*ret_name = name;
	return error;
}

static void print_rules(const struct args *args, const struct policy *policy, const char *name,
	const struct action *action)
{
	char shape[MSG_REDUNDANCY_BYTES], size[SIZE_TEXT_BYTES];
	const struct policy_quota *quota;
	size_t i = 0;

	while (strcmp(policy_tenant_name(policy, i), args->tenant) != 0)
		i++;
	quota = policy_tenant_quota(policy, i);
	printf("allowed by %s, tenants[%zu] '%s'\n  users, groups: %s\n", name, i, args->tenant,
		policy_tenant_users(policy, i));
	if (!action->creates) {
		printf("  quota.sessions: %llu, quota.local_bytes: %s\n",
			(unsigned long long)quota->sessions, size_format(quota->local_bytes, size));
		return;
	}
	printf("  redundancy: %s, on_loss: %s\n",
		msg_redundancy_name(action->data, action->lanes, shape),
		msg_on_loss_name(action->on_loss));
	printf("  quota.bytes: %s, quota.regions: %llu, less what the tenant has already: secpool "
	       "tenant list\n",
		size_format(quota->bytes, size), (unsigned long long)quota->regions);
}

/* The line that decided: an operator changes that one. */
static void print_rule(const char *name, const struct policy_answer *answer)
{
	if (answer->rule == POLICY_RULE_NONE)
		puts("rule: none: no policy could allow it");
	else
		printf("rule: %s:%u: %s\n", name, answer->line, policy_rule_name(answer->rule));
}

int command_policy_explain(const struct args *args)
{
	struct policy_answer answer;
	struct policy *policy = NULL;
	const char *name = NULL;
	struct action action;
	uint32_t uid = 0, gid = 0;
	char path[PATH_MAX];
	enum secpool_error error;
	bool refused = false;

	if (!args->tenant || !args->user || !args->action) {
		fputs("secpool: --tenant, --user and --action are all needed\n", stderr);
		return STATUS_USAGE;
	}
	error = parse_action(args->action, &action);
	if (!error)
		error = find_user(args->user, &uid, &gid);
	if (!error)
		error = load(args, &name, path, &policy);
	if (!error) {
		answer = policy_explain(policy,
			&(struct policy_question){args->tenant, uid, gid,
				action.creates ? POLICY_ACTION_CREATE : POLICY_ACTION_SESSION,
				action.bytes, action.data, action.lanes, action.on_loss});
		refused = answer.decision != SECPOOL_OK;
		if (refused)
			printf("refused by %s: %s\n", name, err_detail());
		else
			print_rules(args, policy, name, &action);
		print_rule(name, &answer);
	}
	policy_free(policy);
	return refused ? STATUS_REFUSED : error ? command_failed(error) : STATUS_DONE;
}
