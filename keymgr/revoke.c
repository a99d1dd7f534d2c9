/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/revoke.h"

#include <string.h>

#include "keymgr/auditlog.h"
#include "keymgr/epochs.h"
#include "keymgr/events.h"
#include "keymgr/regionkeys.h"
#include "keymgr/regions.h"
#include "keymgr/wraps.h"
#include "policy/policy.h"

/* One that has no stored key any more was revoked before, or lost it with a device: then the enclave has none of it either after a start. */
static bool has_keys(const struct regions_row *row)
{
	return row->state == MSG_REGION_LIVE && (row->wrap != 0 || row->next_wrap != 0);
}

/* The audit first: where it can't be appended to nothing has changed but the enclave's record, which the next try does not miss. Then the row names the keys no more, and they are overwritten: a crash in between is made good by the next start. */
static enum secpool_error revoke_region(struct daemon *daemon, const struct regions_row *row)
{
	struct events_about about = {.tenant = row->tenant, .region = row->id, .bytes = row->bytes};
	const uint64_t slots[] = {row->wrap, row->next_wrap};
	enum secpool_error error =
		auditlog_note(daemon, MSG_NOTE_REVOKED, NULL, row->tenant, row->id, "");

	if (!error)
		error = regionkeys_end(daemon, row->id, 0, NULL);
	if (error)
		return error;
	error = epochs_forget_region(daemon->directory, row->id);
	if (!error)
		error = wraps_erase_all(daemon->wraps, slots, sizeof slots / sizeof *slots);
	if (error)
		daemon_fail(daemon, "not-revoked", error);
	else
		events_record(daemon, "revoked", &about,
			"the policy does not let process %d have it any more: its stored key is "
			"overwritten",
			row->process.pid);
	return error;
}

static bool is_named(const struct daemon *daemon, const char *tenant)
{
	const char *name;

	for (size_t i = 0; (name = policy_tenant_name(daemon->policy, i)) != NULL; i++)
		if (strcmp(name, tenant) == 0)
			return true;
	return false;
}

enum secpool_error revoke_unknown_tenants(struct daemon *daemon)
{
	struct regions_row row = {.id = 0};
	enum secpool_error error;

	while (!(error = regions_next(daemon->directory, row.id, &row))) {
		if (has_keys(&row) && !is_named(daemon, row.tenant))
			error = revoke_region(daemon, &row);
		if (error)
			return error;
	}
	return error == SECPOOL_E_NOT_FOUND ? SECPOOL_OK : error;
}

enum secpool_error revoke_tell_quotas(struct daemon *daemon)
{
	const char *name;

	for (size_t i = 0; (name = policy_tenant_name(daemon->policy, i)) != NULL; i++) {
		const struct policy_quota *quota = policy_tenant_quota(daemon->policy, i);
		struct events_about about = {.tenant = name};
		struct regions_use use = {0};
		enum secpool_error error = regions_count_use(daemon->directory, name, &use);

		if (error)
			return error;
		about.bytes = use.bytes;
		if (use.regions > quota->regions || use.bytes > quota->bytes)
			events_record(daemon, "over-quota", &about,
				"%llu regions of %llu, %llu MiB of %llu: no more until it is below",
				(unsigned long long)use.regions, (unsigned long long)quota->regions,
				(unsigned long long)(use.bytes >> 20),
				(unsigned long long)(quota->bytes >> 20));
	}
	return SECPOOL_OK;
}

enum secpool_error revoke_refused(
	struct daemon *daemon, const struct os_process *process, const char *tenant)
{
	struct regions_row row = {.id = 0};
	enum secpool_error error = SECPOOL_OK;

	while (!error && !(error = regions_next_of(daemon->directory, process, row.id, &row)))
		if (has_keys(&row) && strcmp(row.tenant, tenant) == 0)
			error = revoke_region(daemon, &row);
	if (error == SECPOOL_E_NOT_FOUND)
		return SECPOOL_OK;
	if (!auditlog_refuses(daemon->auditlog))
		daemon_fail(daemon, "not-revoked", error);
	return error;
}
