/* SPDX-License-Identifier: Apache-2.0 */
#include "policy/policy.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/base/os.h"
#include "policy/model.h"

enum secpool_error policy_load_text(
	const char *text, size_t bytes, const char *name, struct policy **ret_policy)
{
	struct schema_file *file = NULL;
	struct policy *policy = NULL;
	struct lines *lines = NULL;
	enum secpool_error error;

	if (bytes > POLICY_FILE_BYTES_MOST)
		return err_set(SECPOOL_E_LIMIT, "%s: a policy has at most %d bytes", name,
			POLICY_FILE_BYTES_MOST);
	error = lines_new(text, bytes, name, &lines);
	if (error)
		goto out;
	error = schema_load(text, bytes, name, lines, &file);
	if (error)
		goto out;
	policy = calloc(1, sizeof *policy);
	if (!policy) {
		error = os_error("%s", name);
		goto out;
	}
	error = build_policy(file, lines, name, policy);
	if (error)
		goto out;
	*ret_policy = policy;
	policy = NULL;
out:
	policy_free(policy);
	schema_free(file);
	lines_free(lines);
	return error;
}

enum secpool_error policy_load_fd(int fd, const char *name, struct policy **ret_policy)
{
	enum secpool_error error;
	char *text = NULL;
	size_t bytes = 0;

	if (lseek(fd, 0, SEEK_SET) < 0)
		return os_error("%s: can't be read from its start", name);
	error = os_read_fd(fd, name, POLICY_FILE_BYTES_MOST, &text, &bytes);
	if (!error)
		error = policy_load_text(text, bytes, name, ret_policy);
	free(text);
	return error;
}

void policy_free(struct policy *policy)
{
	if (!policy)
		return;
	for (size_t i = 0; i < policy->tenant_count; i++) {
		free(policy->tenants[i].users_text);
		free(policy->tenants[i].uids);
		free(policy->tenants[i].gids);
		free(policy->tenants[i].share_with);
	}
	free(policy->tenants);
	free(policy->known);
	free(policy->revoked);
	free(policy->firmware);
	free(policy->references);
	for (size_t i = 0; i < policy->ek_ca_count; i++)
		free(policy->ek_ca[i]);
	free(policy->ek_ca);
	free(policy);
}

const struct policy_settings *policy_settings(const struct policy *policy)
{
	return &policy->settings;
}

const char *policy_tenant_name(const struct policy *policy, size_t index)
{
	return index < policy->tenant_count ? policy->tenants[index].name : NULL;
}

const char *policy_tenant_users(const struct policy *policy, size_t index)
{
	return index < policy->tenant_count ? policy->tenants[index].users_text : NULL;
}

const struct policy_quota *policy_tenant_quota(const struct policy *policy, size_t index)
{
	return index < policy->tenant_count ? &policy->tenants[index].quota : NULL;
}

const char *policy_ek_ca(const struct policy *policy, size_t index)
{
	return index < policy->ek_ca_count ? policy->ek_ca[index] : NULL;
}

uint32_t policy_tier(const struct policy *policy, uint64_t latency_ns)
{
	uint32_t tier = 0;

	while (tier < policy->tier_count &&
		(latency_ns == 0 || latency_ns > policy->tiers[tier].latency_ns))
		tier++;
	return tier;
}

const char *policy_tier_label(const struct policy *policy, uint32_t tier)
{
	return tier < policy->tier_count ? policy->tiers[tier].name : MODEL_REST_TIER;
}

const struct model_tenant *model_tenant(const struct policy *policy, const char *name)
{
	for (size_t i = 0; i < policy->tenant_count; i++)
		if (strcmp(policy->tenants[i].name, name) == 0)
			return &policy->tenants[i];
	return NULL;
}
