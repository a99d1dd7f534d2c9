/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a policy: loaded or refused with a sentence that names the file; a loaded one answers every question. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "lib/wire/msg.h"
#include "policy/policy.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

/* An explanation is the decision itself; its rule has a line unless no policy could allow what was asked. */
static void ask_why(const struct policy *policy, const char *tenant, uint32_t copies)
{
	const struct policy_question question = {
		tenant, 0, 0, POLICY_ACTION_CREATE, 4096, 1 + copies % 2, copies, copies % 3};
	struct policy_answer answer = policy_explain(policy, &question);
	struct policy_quota quota;
	enum secpool_error error = policy_may_be_tenant(policy, tenant, 0, 0, &quota);

	if (!error)
		error = policy_may_create(policy, tenant, question.bytes, question.data,
			question.lanes, question.on_loss);
	if (answer.decision != error || (answer.line == 0) != (answer.rule == POLICY_RULE_NONE))
		abort();
}

static void ask(const struct policy *policy)
{
	static const uint8_t ek[34] = {0x00, 0x0b};
	struct policy_quota quota;
	const char *name;
	bool first_use;

	if (policy_may_be_tenant(policy, "\x01", 0, 0, &quota) != SECPOOL_E_UNKNOWN_TENANT)
		abort();
	for (size_t i = 0; (name = policy_tenant_name(policy, i)) != NULL; i++) {
		if (strlen(name) >= MSG_NAME_BYTES || !policy_tenant_users(policy, i))
			abort();
		(void)!policy_may_be_tenant(policy, name, 0, 0, &quota);
		for (uint32_t copies = 0; copies < 6; copies++)
			ask_why(policy, name, copies);
	}
	(void)!policy_may_use_device(policy, "dev0", ek, "x", &first_use);
	if (policy_settings(policy)->window_base % (2 << 20))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
	struct policy *policy = NULL;
	enum secpool_error error;

	err_clear();
	error = policy_load_text((const char *)bytes, count, "fuzz", &policy);
	if (error) {
		if (policy || strncmp(err_detail(), "fuzz", 4) != 0)
			abort();
		return 0;
	}
	ask(policy);
	policy_free(policy);
	return 0;
}
