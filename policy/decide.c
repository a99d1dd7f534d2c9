/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "lib/base/size.h"
#include "lib/wire/msg.h"
#include "policy/model.h"

static enum secpool_error unknown_tenant(const char *tenant)
{
	return err_set(SECPOOL_E_UNKNOWN_TENANT,
		"the policy has no tenant '%.63s': see 'secpool tenant list'", tenant);
}

static bool has_id(const uint32_t *ids, size_t count, uint32_t id)
{
	for (size_t i = 0; i < count; i++)
		if (ids[i] == id)
			return true;
	return false;
}

enum secpool_error policy_may_be_tenant(const struct policy *policy, const char *tenant,
	uint32_t uid, uint32_t gid, struct policy_quota *ret_quota)
{
	const struct model_tenant *t = model_tenant(policy, tenant);

	if (!t)
		return unknown_tenant(tenant);
	if (!has_id(t->uids, t->uid_count, uid) && !has_id(t->gids, t->gid_count, gid))
		return err_set(SECPOOL_E_DENIED,
			"user %u may not be tenant '%s': the policy allows %.80s", uid, t->name,
			t->users_text);
	*ret_quota = t->quota;
	return SECPOOL_OK;
}

/* Every code that there is. */
static void allow_all_codes(struct model_tenant *to)
{
	for (uint32_t lanes = 2; lanes <= MSG_LANES_MAX; lanes++)
		for (uint32_t data = 2; data < lanes; data++)
			if (msg_redundancy_valid(data, lanes))
				to->coded_allowed[lanes - data] |= 1u << data;
}

bool model_allow_redundancy(const char *text, struct model_tenant *to)
{
	uint32_t data, lanes;

	if (strcmp(text, "ec") == 0)
		allow_all_codes(to);
	else if (!msg_redundancy_read(text, &data, &lanes))
		return false;
	else if (data == 1)
		to->copies_allowed |= 1u << lanes;
	else
		to->coded_allowed[lanes - data] |= 1u << data;
	return true;
}

bool model_allow_on_loss(const char *text, struct model_tenant *to)
{
	uint32_t mode = msg_on_loss_read(text);

	if (mode != 0)
		to->on_loss_allowed |= 1u << mode;
	return mode != 0;
}

bool model_redundancy_allowed(const struct model_tenant *t, uint32_t data, uint32_t lanes)
{
	return data > 1 ? t->coded_allowed[lanes - data] & 1u << data
			: t->copies_allowed & 1u << lanes;
}

enum secpool_error policy_may_create(const struct policy *policy, const char *tenant,
	uint64_t bytes, uint32_t data, uint32_t lanes, uint32_t on_loss)
{
	const struct model_tenant *t = model_tenant(policy, tenant);
	char asked[SIZE_TEXT_BYTES], most[SIZE_TEXT_BYTES], shape[MSG_REDUNDANCY_BYTES];

	if (!t)
		return unknown_tenant(tenant);
	if (!msg_redundancy_valid(data, lanes))
		return err_set(SECPOOL_E_UNSUPPORTED,
			"%u data lanes of %u are not available: choose none, mirror:2 to "
			"mirror:%d, "
			"or ec:K+M with M up to %d and K+M up to %d",
			data, lanes, MSG_COPIES_MAX, MSG_PARITY_MAX, MSG_LANES_MAX);
	if (on_loss < MSG_ON_LOSS_SIGBUS || on_loss > MSG_ON_LOSS_REFILL)
		return err_set(SECPOOL_E_UNSUPPORTED,
			"loss mode %u is not available: choose sigbus, failover, refill, signal or "
			"kill",
			on_loss);
	if (on_loss == MSG_ON_LOSS_FAILOVER && lanes < 2)
		return err_set(SECPOOL_E_UNSUPPORTED,
			"loss mode failover needs redundancy: choose mirror:2, ec:4+2 or sigbus");
	if (!model_redundancy_allowed(t, data, lanes))
		return err_set(SECPOOL_E_DENIED,
			"tenant '%s' may not have regions with redundancy %s: see its redundancy "
			"in the policy",
			t->name, msg_redundancy_name(data, lanes, shape));
	if (!(t->on_loss_allowed & 1u << on_loss))
		return err_set(SECPOOL_E_DENIED,
			"tenant '%s' may not use loss mode %s: see its on_loss in the policy",
			t->name, msg_on_loss_name(on_loss));
	if (bytes > t->quota.bytes)
		return err_set(SECPOOL_E_QUOTA,
			"a region of %s is more than tenant '%s' may have at all (%s)",
			size_format(bytes, asked), t->name, size_format(t->quota.bytes, most));
	return SECPOOL_OK;
}

enum secpool_error policy_may_share(
	const struct policy *policy, const char *owner, const char *with)
{
	const struct model_tenant *t = model_tenant(policy, owner);

	if (!t || !model_tenant(policy, with))
		return unknown_tenant(t ? with : owner);
	for (size_t i = 0; i < t->share_count; i++)
		if (strcmp(t->share_with[i], with) == 0)
			return SECPOOL_OK;
	if (strcmp(owner, with) == 0)
		return SECPOOL_OK;
	return err_set(SECPOOL_E_DENIED,
		"tenant '%s' may not share with tenant '%.63s': see its share_with in the policy",
		t->name, with);
}

static bool firmware_allowed(const struct policy *policy, const char *firmware)
{
	for (size_t i = 0; i < policy->firmware_count; i++)
		if (strcmp(policy->firmware[i], firmware) == 0)
			return true;
	return false;
}

bool policy_is_revoked(const struct policy *policy, const char *id, const uint8_t ek_name[34])
{
	for (size_t i = 0; i < policy->revoked_count; i++) {
		const struct model_revoked *revoked = &policy->revoked[i];

		if (revoked->id[0] ? strcmp(revoked->id, id) == 0
				   : ek_name && memcmp(revoked->ek, ek_name, MODEL_EK_BYTES) ==
							0) /* public bytes */
			return true;
	}
	return false;
}

enum secpool_error policy_may_use_device(const struct policy *policy, const char *id,
	const uint8_t ek_name[34], const char *firmware, bool *ret_first_use)
{
	const struct model_known *by_id = NULL, *by_ek = NULL;

	if (policy_is_revoked(policy, id, ek_name))
		return err_set(SECPOOL_E_ATTESTATION,
			"device '%.63s' is revoked: the policy has it under devices.revoked", id);
	if (!firmware_allowed(policy, firmware))
		return err_set(SECPOOL_E_ATTESTATION,
			"device '%.63s' has firmware '%.63s': the policy does not list it", id,
			firmware);
	for (size_t i = 0; i < policy->known_count; i++) {
		const struct model_known *known = &policy->known[i];

		if (strcmp(known->id, id) == 0)
			by_id = known;
		if (memcmp(known->ek, ek_name, MODEL_EK_BYTES) == 0) /* public bytes */
			by_ek = known;
	}
	if (by_ek && by_ek != by_id)
		return err_set(SECPOOL_E_ATTESTATION,
			"device '%.63s' has the EK of '%s': one device, one id", id, by_ek->id);
	if (by_id && by_id != by_ek)
		return err_set(SECPOOL_E_ATTESTATION,
			"device '%.63s' has another EK than the policy lists: it is another device",
			id);
	if (!by_id && !policy->first_use)
		return err_set(SECPOOL_E_ATTESTATION,
			"device '%.63s' is not listed: the policy has 'enrol: listed'", id);
	*ret_first_use = !by_id;
	return SECPOOL_OK;
}

/* Into a list of at most bytes: the names of the references of this PCR. */
static void list_references(const struct policy *policy, unsigned pcr, char *text, size_t bytes)
{
	size_t used = 0;

	for (size_t i = 0; i < policy->reference_count && used < bytes; i++)
		if (policy->references[i].pcr == pcr)
			used += (size_t)snprintf(text + used, bytes - used, "%s%s",
				used ? ", " : "", policy->references[i].name);
}

enum secpool_error policy_may_measure(
	const struct policy *policy, const char *id, unsigned pcr, const uint8_t value[32])
{
	char names[96] = "";
	bool any = false;

	for (size_t i = 0; i < policy->reference_count; i++) {
		const struct model_reference *reference = &policy->references[i];

		if (reference->pcr != pcr)
			continue;
		any = true;
		if (memcmp(reference->value, value, MODEL_PCR_BYTES) == 0) /* public bytes */
			return SECPOOL_OK;
	}
	if (!any)
		return SECPOOL_OK;
	list_references(policy, pcr, names, sizeof names);
	return err_set(SECPOOL_E_ATTESTATION,
		"device '%.63s' has PCR %u = %02x%02x%02x%02x...: the policy lists other values "
		"(%s)",
		id, pcr, value[0], value[1], value[2], value[3], names);
}
