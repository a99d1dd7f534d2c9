/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/model.h"

const char *policy_rule_name(enum policy_rule rule)
{
	static const char *const names[POLICY_RULES] = {
		[POLICY_RULE_NONE] = "",
		[POLICY_RULE_TENANTS] = "tenants",
		[POLICY_RULE_TENANT] = "tenant",
		[POLICY_RULE_USERS] = "users",
		[POLICY_RULE_GROUPS] = "groups",
		[POLICY_RULE_QUOTA] = "quota.bytes",
		[POLICY_RULE_REDUNDANCY] = "redundancy",
		[POLICY_RULE_ON_LOSS] = "on_loss",
	};

	return (unsigned)rule < POLICY_RULES ? names[rule] : "";
}

/* By which of its lists the user may be the tenant: a group's members are behind those that are named. */
static enum policy_rule rule_of_user(const struct model_tenant *t, uint32_t uid)
{
	for (size_t i = 0; i < t->uids_named; i++)
		if (t->uids[i] == uid)
			return POLICY_RULE_USERS;
	return POLICY_RULE_GROUPS;
}

/* What refused a region that policy_may_create did not allow. */
static enum policy_rule rule_of_refusal(
	const struct model_tenant *t, const struct policy_question *q, enum secpool_error decision)
{
	if (decision == SECPOOL_E_QUOTA)
		return POLICY_RULE_QUOTA;
	if (decision != SECPOOL_E_DENIED)
		return POLICY_RULE_NONE;
	/* in the order in which policy_may_create asks */
	return model_redundancy_allowed(t, q->data, q->lanes) ? POLICY_RULE_ON_LOSS
							      : POLICY_RULE_REDUNDANCY;
}

struct policy_answer policy_explain(const struct policy *policy, const struct policy_question *q)
{
	const struct model_tenant *t = model_tenant(policy, q->tenant);
	struct policy_answer answer = {.decision = SECPOOL_E_INTERNAL};
	struct policy_quota quota;

	answer.decision = policy_may_be_tenant(policy, q->tenant, q->uid, q->gid, &quota);
	if (!t) {
		answer.rule = POLICY_RULE_TENANTS;
		answer.line = policy->tenants_line;
		return answer;
	}
	answer.rule = answer.decision ? POLICY_RULE_TENANT : rule_of_user(t, q->uid);
	if (!answer.decision && q->action == POLICY_ACTION_CREATE) {
		answer.decision = policy_may_create(
			policy, q->tenant, q->bytes, q->data, q->lanes, q->on_loss);
		if (answer.decision)
			answer.rule = rule_of_refusal(t, q, answer.decision);
	}
	answer.line = t->lines[answer.rule];
	return answer;
}
