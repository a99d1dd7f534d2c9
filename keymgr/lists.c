/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/lists.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "keymgr/devices.h"
#include "keymgr/devwork.h"
#include "keymgr/directory.h"
#include "keymgr/extents.h"
#include "keymgr/lanes.h"
#include "keymgr/regions.h"
#include "keymgr/server.h"
#include "keymgr/session.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "policy/policy.h"

enum { STATUS_ROWS = 17 };

struct status {
	struct daemon *daemon;
	struct msg_enc_status_reply enclave;
	uint64_t regions, releasing, receipts, online;
};

static enum secpool_error count_rows(struct status *status)
{
	struct directory *directory = status->daemon->directory;
	enum secpool_error error =
		directory_number(directory, "SELECT IFNULL(SUM(regions), 0) FROM tenant_use",
			DIRECTORY_VALUES(), &status->regions);

	if (!error)
		error = directory_number(directory,
			"SELECT IFNULL(SUM(releasing), 0) FROM tenant_use", DIRECTORY_VALUES(),
			&status->releasing);
	/* their numbers follow each other: the oldest are the ones that go */
	if (!error)
		error = directory_number(directory,
			"SELECT IFNULL((SELECT MAX(number) FROM receipts)"
			" - (SELECT MIN(number) FROM receipts) + 1, 0)",
			DIRECTORY_VALUES(), &status->receipts);
	for (size_t i = 0; i < status->daemon->devices->count; i++)
		status->online += status->daemon->devices->rows[i]->state == MSG_DEVICE_ONLINE;
	return error;
}

static void put_row(struct msg_status_row *row, const char *name, const char *format, ...)
	PRINTF_LIKE(3, 4);

static void put_row(struct msg_status_row *row, const char *name, const char *format, ...)
{
	va_list args;

	MSG_SET(row->name, name);
	va_start(args, format);
	vsnprintf(row->value, sizeof row->value, format, args);
	va_end(args);
}

/* Whether programs without privilege can have the kernel's own faults served, and what to do where not. */
static const char *faultfd_text(const struct daemon *daemon)
{
	char *text = NULL;
	size_t bytes;
	bool everybody = os_read_file("/proc/sys/vm/unprivileged_userfaultfd", 16, &text, &bytes) ==
				 SECPOOL_OK &&
			 bytes > 0 && text[0] == '1';

	free(text);
	if (daemon->faultfd >= 0)
		return "yes";
	return everybody
		       ? "no, and not needed: vm.unprivileged_userfaultfd=1"
		       : "no: in programs without CAP_SYS_PTRACE system calls on pool memory fail "
			 "with EFAULT. Let keymgrd open /dev/userfaultfd, or set "
			 "vm.unprivileged_userfaultfd=1";
}

/* False beyond the last row. */
static bool status_row(const struct status *status, uint64_t index, struct msg_status_row *row)
{
	const struct daemon *daemon = status->daemon;

	switch (index) {
	case 0:
		put_row(row, "version", "%s", SECPOOL_VERSION);
		break;
	case 1:
		put_row(row, "uptime", "%llu s",
			(unsigned long long)(clock_now_ns() - daemon->start_ns) / CLOCK_NS_PER_S);
		break;
	case 2:
		put_row(row, "enclave", "pid %d", daemon->enclave_pid);
		break;
	case 3:
		put_row(row, "root key", "%s, generation %llu; destroyed since: %llu keys",
			daemon->provisioned ? "made at this start" : "unsealed by the TPM",
			(unsigned long long)status->enclave.generation,
			(unsigned long long)status->enclave.dropped);
		break;
	case 4:
		put_row(row, "secret memory", "%s",
			status->enclave.secret_memory ? "memfd_secret"
						      : "locked memory (policy allows it)");
		break;
	case 5:
		put_row(row, "sandbox", "%s", status->enclave.sandboxed ? "seccomp" : "none");
		break;
	case 6:
		put_row(row, "tpm", "%s", status->enclave.tpm);
		break;
	case 7:
		put_row(row, "cipher", "%s", status->enclave.cipher);
		break;
	case 8:
		put_row(row, "userfaultfd passed to clients", "%s", faultfd_text(daemon));
		break;
	case 9:
		put_row(row, "sessions", "%llu",
			(unsigned long long)session_count(daemon->sessions, NULL));
		break;
	case 10:
		put_row(row, "regions", "%llu", (unsigned long long)status->regions);
		break;
	case 11:
		put_row(row, "regions being released", "%llu",
			(unsigned long long)status->releasing);
		break;
	case 12:
		put_row(row, "devices online", "%llu", (unsigned long long)status->online);
		break;
	case 13:
		put_row(row, "hotplugd", "%s",
			daemon->devices->hotplug ? "connected" : "not connected");
		break;
	case 14:
		put_row(row, "receipts", "%llu", (unsigned long long)status->receipts);
		break;
	case 15:
		put_row(row, "connections", "%u", server_count(daemon->server));
		break;
	case 16:
		put_row(row, "locked memory of clients", "%s",
			daemon->may_raise
				? "raised to their quota"
				: "not raised, keymgrd has no CAP_SYS_RESOURCE: users need "
				  "a limit of their own (LimitMEMLOCK=, limits.conf)");
		break;
	default:
		return false;
	}
	return true;
}

static enum secpool_error next_status(struct daemon *daemon, uint64_t *after, struct msg *row)
{
	struct msg request = {.type = MSG_ENC_STATUS}, answer;
	struct status status = {.daemon = daemon};
	enum secpool_error error;

	if (*after >= STATUS_ROWS)
		return SECPOOL_E_NOT_FOUND;
	error = daemon_ask(daemon, &request, -1, MSG_ENC_STATUS_REPLY, &answer);
	if (!error)
		error = count_rows(&status);
	if (error)
		return error;
	status.enclave = answer.u.enc_status_reply;
	row->type = MSG_STATUS_ROW;
	return status_row(&status, (*after)++, &row->u.status_row) ? SECPOOL_OK
								   : SECPOOL_E_NOT_FOUND;
}

/* "dev0 dev1", and the lanes of which every part is on a device that is there. */
static enum secpool_error fill_places(struct daemon *daemon, struct msg_region_row *out)
{
	struct directory_rows *rows = NULL;
	char devices[sizeof out->devices] = "";
	size_t used = 0;
	enum secpool_error error = directory_query(daemon->directory,
		"SELECT DISTINCT slot FROM extents WHERE region = ?1 AND state = ?2 ORDER BY slot",
		DIRECTORY_VALUES(DIRECTORY_N(out->region), DIRECTORY_N(EXTENTS_IN_USE)), &rows);

	while (!error && directory_next(rows, &error)) {
		uint64_t slot = directory_get_number(rows, 0);
		const struct devices_row *device = devices_at(daemon->devices, slot);

		if (device && used < sizeof devices - sizeof device->id - 1)
			used += (size_t)snprintf(devices + used, sizeof devices - used, "%s%s",
				used ? " " : "", device->id);
	}
	directory_done(rows);
	MSG_SET(out->devices, devices);
	return error ? error
		     : lanes_live(daemon, out->region,
			       msg_lane_bytes(out->bytes, out->page_bytes, out->data), 0,
			       LANES_REACHED, &out->live_lanes);
}

static enum secpool_error next_region(struct daemon *daemon, uint64_t *after, struct msg *row)
{
	struct msg_region_row *out = &row->u.region_row;
	struct regions_row region;
	enum secpool_error error = regions_next(daemon->directory, *after, &region);

	if (error)
		return error;
	row->type = MSG_REGION_ROW;
	out->region = region.id;
	out->address = region.address;
	out->bytes = region.bytes;
	out->page_bytes = region.page_bytes;
	out->data = region.data;
	out->lanes = region.lanes;
	out->on_loss = region.on_loss;
	out->pid = (uint32_t)region.process.pid;
	out->state = region.state;
	MSG_SET(out->name, region.name);
	MSG_SET(out->tenant, region.tenant);
	*after = region.id;
	out->epoch = region.epoch;
	out->rotation = region.next_epoch ? MSG_ROTATION_RUNNING
			: region.rotate	  ? MSG_ROTATION_WANTED
					  : MSG_ROTATION_NONE;
	session_walk_of(daemon->sessions, region.id, MSG_PROGRESS_REBUILD, &out->rebuilt_bytes,
		&out->rebuild_bytes);
	session_walk_of(daemon->sessions, region.id, MSG_PROGRESS_ROTATION, &out->rotated_bytes,
		&out->rotation_bytes);
	return fill_places(daemon, out);
}

/* Rows of tenants are numbered from 1 in the policy's order. */
static enum secpool_error next_tenant(struct daemon *daemon, uint64_t *after, struct msg *row)
{
	const char *name = policy_tenant_name(daemon->policy, *after);
	struct msg_tenant_row *out = &row->u.tenant_row;
	const struct policy_quota *quota = policy_tenant_quota(daemon->policy, *after);
	struct regions_use use = {0};
	enum secpool_error error;

	if (!quota)
		return SECPOOL_E_NOT_FOUND;
	error = regions_count_use(daemon->directory, name, &use);
	if (error)
		return error;
	row->type = MSG_TENANT_ROW;
	out->bytes_used = use.bytes;
	out->bytes_quota = quota->bytes;
	out->regions_used = use.regions;
	out->regions_quota = quota->regions;
	out->sessions = session_count(daemon->sessions, name);
	out->sessions_quota = quota->sessions;
	MSG_SET(out->tenant, name);
	MSG_SET(out->users, policy_tenant_users(daemon->policy, *after));
	(*after)++;
	return SECPOOL_OK;
}

static enum secpool_error next_event(struct daemon *daemon, uint64_t *after, struct msg *row)
{
	struct msg_event_row *out = &row->u.event_row;
	struct directory_rows *rows = NULL;
	enum secpool_error error = directory_query(daemon->directory,
		"SELECT number, time_ns, region, offset, bytes, kind, device, tenant, detail"
		" FROM events WHERE number > ?1 ORDER BY number LIMIT 1",
		DIRECTORY_VALUES(DIRECTORY_N(*after)), &rows);

	if (!error && directory_next(rows, &error)) {
		row->type = MSG_EVENT_ROW;
		out->number = directory_get_number(rows, 0);
		out->time_ns = directory_get_number(rows, 1);
		out->region = directory_get_number(rows, 2);
		out->offset = directory_get_number(rows, 3);
		out->bytes = directory_get_number(rows, 4);
		directory_get_text(rows, 5, out->kind, sizeof out->kind);
		directory_get_text(rows, 6, out->device, sizeof out->device);
		directory_get_text(rows, 7, out->tenant, sizeof out->tenant);
		directory_get_text(rows, 8, out->detail, sizeof out->detail);
		*after = out->number;
	} else if (!error) {
		error = SECPOOL_E_NOT_FOUND;
	}
	directory_done(rows);
	return error;
}

/* Rows are in the order of slots, which rise with the array's index. */
static enum secpool_error next_use(struct daemon *daemon, uint64_t *after, struct msg *row)
{
	struct devices_row *device = NULL;
	struct msg_use_row *out = &row->u.use_row;
	struct extents_use use = {0};
	enum secpool_error error;

	for (size_t i = 0; i < daemon->devices->count; i++) {
		struct devices_row *d = daemon->devices->rows[i];

		if (d->slot > *after && (!device || d->slot < device->slot))
			device = d;
	}
	if (!device)
		return SECPOOL_E_NOT_FOUND;
	error = devwork_look(daemon, device, &use);
	if (error)
		return error;
	row->type = MSG_USE_ROW;
	devwork_drain(device, &use, &out->drain_done_bytes, &out->drain_bytes);
	devwork_scrub(device, &use, &out->scrub_done_bytes, &out->scrub_bytes);
	out->scrub_run_ns = device->work.run_ns;
	out->run_matched_bytes = device->work.matched_bytes;
	out->run_differed_bytes = device->work.differed_bytes;
	out->run_failed_bytes = device->work.failed_bytes;
	out->differed_bytes = use.differed;
	out->slot = device->slot;
	out->bytes = device->bytes;
	out->used_bytes = use.used;
	out->free_bytes = use.free;
	out->unscrubbed_bytes = use.unscrubbed;
	out->largest_free_bytes = use.largest_free;
	out->free_extents = use.free_extents;
	out->state = device->state;
	out->latency_ns = device->latency_ns;
	MSG_SET(out->id, device->id);
	/* one that is not there is in none */
	if (device->media_fd >= 0)
		MSG_SET(out->tier, policy_tier_label(daemon->policy,
					   policy_tier(daemon->policy, device->latency_ns)));
	*after = device->slot;
	return SECPOOL_OK;
}

static const struct {
	uint32_t what;
	enum secpool_error (*next)(struct daemon *daemon, uint64_t *after, struct msg *row);
} lists[] = {
	{MSG_LIST_STATUS, next_status},
	{MSG_LIST_REGIONS, next_region},
	{MSG_LIST_TENANTS, next_tenant},
	{MSG_LIST_EVENTS, next_event},
	{MSG_LIST_USE, next_use},
};

bool lists_known(uint32_t what)
{
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
		if (lists[i].what == what)
			return true;
	return false;
}

enum secpool_error lists_next(
	struct daemon *daemon, uint32_t what, uint64_t *after, struct msg *ret_row)
{
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++)
		if (lists[i].what == what)
			return lists[i].next(daemon, after, ret_row);
	return err_set(SECPOOL_E_UNSUPPORTED, "keymgrd has no list %u", what);
}
