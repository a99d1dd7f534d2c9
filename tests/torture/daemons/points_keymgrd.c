/* SPDX-License-Identifier: Apache-2.0 */
/* keymgrd's functions at which the torture can stop it (tests/rules.mk: the linker's --wrap). */
#include "enclave/keyfile.h"
#include "keymgr/auditlog.h"
#include "keymgr/daemon.h"
#include "keymgr/devices.h"
#include "keymgr/epochs.h"
#include "keymgr/extents.h"
#include "keymgr/hotplug.h"
#include "keymgr/overwrite.h"
#include "keymgr/regions.h"
#include "keymgr/wraps.h"
#include "tests/torture/points.h"

#define WRAP(type, name, ...)                                                                      \
	type __real_##name(__VA_ARGS__);                                                           \
	type __wrap_##name(__VA_ARGS__)

WRAP(enum secpool_error, extents_take, struct directory *directory, uint64_t region, uint32_t lanes,
	uint64_t bytes, const struct extents_device *devices, size_t device_count);

enum secpool_error __wrap_extents_take(struct directory *directory, uint64_t region, uint32_t lanes,
	uint64_t bytes, const struct extents_device *devices, size_t device_count)
{
	points_at(POINT_KEYMGR_PLACE);
	return __real_extents_take(directory, region, lanes, bytes, devices, device_count);
}

WRAP(enum secpool_error, extents_fill, struct directory *directory, uint64_t region, uint32_t lanes,
	uint64_t bytes, const struct extents_device *devices, size_t device_count);

enum secpool_error __wrap_extents_fill(struct directory *directory, uint64_t region, uint32_t lanes,
	uint64_t bytes, const struct extents_device *devices, size_t device_count)
{
	points_at(POINT_KEYMGR_FILL);
	return __real_extents_fill(directory, region, lanes, bytes, devices, device_count);
}

WRAP(enum secpool_error, extents_move, struct directory *directory, uint64_t region, uint64_t slot,
	const struct extents_device *devices, size_t device_count);

enum secpool_error __wrap_extents_move(struct directory *directory, uint64_t region, uint64_t slot,
	const struct extents_device *devices, size_t device_count)
{
	points_at(POINT_KEYMGR_MOVE);
	return __real_extents_move(directory, region, slot, devices, device_count);
}

WRAP(enum secpool_error, extents_moved, struct directory *directory, uint64_t region,
	uint64_t slot);

enum secpool_error __wrap_extents_moved(struct directory *directory, uint64_t region, uint64_t slot)
{
	points_at(POINT_KEYMGR_MOVED);
	return __real_extents_moved(directory, region, slot);
}

WRAP(enum secpool_error, extents_scrub_again, struct directory *directory, uint64_t slot);

enum secpool_error __wrap_extents_scrub_again(struct directory *directory, uint64_t slot)
{
	points_at(POINT_KEYMGR_SCRUB_AGAIN);
	return __real_extents_scrub_again(directory, slot);
}

WRAP(enum secpool_error, wraps_erase, struct wraps *wraps, uint64_t slot);

enum secpool_error __wrap_wraps_erase(struct wraps *wraps, uint64_t slot)
{
	enum secpool_error error;

	points_at(POINT_KEYMGR_ERASE);
	error = __real_wraps_erase(wraps, slot);
	points_at(POINT_KEYMGR_ERASED);
	return error;
}

WRAP(enum secpool_error, wraps_put_all, struct wraps *wraps,
	const struct msg_enc_key_wrapped *const *keys, size_t count);

enum secpool_error __wrap_wraps_put_all(
	struct wraps *wraps, const struct msg_enc_key_wrapped *const *keys, size_t count)
{
	enum secpool_error error;

	points_at(POINT_KEYMGR_STORE);
	error = __real_wraps_put_all(wraps, keys, count);
	points_at(POINT_KEYMGR_STORED);
	return error;
}

WRAP(enum secpool_error, wraps_erase_all, struct wraps *wraps, const uint64_t *slots, size_t count);

enum secpool_error __wrap_wraps_erase_all(struct wraps *wraps, const uint64_t *slots, size_t count)
{
	enum secpool_error error;

	points_at(POINT_KEYMGR_ERASE);
	error = __real_wraps_erase_all(wraps, slots, count);
	points_at(POINT_KEYMGR_ERASED);
	return error;
}

WRAP(enum secpool_error, regions_set_live, struct directory *directory, uint64_t region,
	uint64_t wrap);

enum secpool_error __wrap_regions_set_live(
	struct directory *directory, uint64_t region, uint64_t wrap)
{
	points_at(POINT_KEYMGR_LIVE);
	return __real_regions_set_live(directory, region, wrap);
}

WRAP(enum secpool_error, epochs_want, struct directory *directory, const char *tenant,
	uint64_t *ret_count);

enum secpool_error __wrap_epochs_want(
	struct directory *directory, const char *tenant, uint64_t *ret_count)
{
	points_at(POINT_KEYMGR_ROTATE_WANT);
	return __real_epochs_want(directory, tenant, ret_count);
}

WRAP(enum secpool_error, epochs_begin, struct directory *directory, uint64_t region, uint64_t epoch,
	uint64_t wrap);

enum secpool_error __wrap_epochs_begin(
	struct directory *directory, uint64_t region, uint64_t epoch, uint64_t wrap)
{
	enum secpool_error error;

	points_at(POINT_KEYMGR_ROTATE_BEGIN);
	error = __real_epochs_begin(directory, region, epoch, wrap);
	points_at(POINT_KEYMGR_ROTATE_BEGUN);
	return error;
}

WRAP(enum secpool_error, epochs_end, struct directory *directory, uint64_t region, uint64_t epoch);

enum secpool_error __wrap_epochs_end(struct directory *directory, uint64_t region, uint64_t epoch)
{
	enum secpool_error error;

	points_at(POINT_KEYMGR_ROTATED);
	error = __real_epochs_end(directory, region, epoch);
	points_at(POINT_KEYMGR_ROTATED_ERASE);
	return error;
}

WRAP(enum secpool_error, regions_release, struct directory *directory, uint64_t region,
	enum msg_client_end client);

enum secpool_error __wrap_regions_release(
	struct directory *directory, uint64_t region, enum msg_client_end client)
{
	points_at(POINT_KEYMGR_RELEASE);
	return __real_regions_release(directory, region, client);
}

WRAP(enum secpool_error, regions_add_scrubbed, struct directory *directory, uint64_t region,
	enum msg_readback readback, uint64_t bytes);

enum secpool_error __wrap_regions_add_scrubbed(
	struct directory *directory, uint64_t region, enum msg_readback readback, uint64_t bytes)
{
	points_at(POINT_KEYMGR_COUNT);
	return __real_regions_add_scrubbed(directory, region, readback, bytes);
}

WRAP(enum secpool_error, regions_finish, struct directory *directory, uint64_t region,
	uint64_t number, const char *text, const uint8_t digest[32]);

enum secpool_error __wrap_regions_finish(struct directory *directory, uint64_t region,
	uint64_t number, const char *text, const uint8_t digest[32])
{
	points_at(POINT_KEYMGR_RECEIPT);
	return __real_regions_finish(directory, region, number, text, digest);
}

WRAP(enum msg_readback, overwrite_range, int media_fd, uint64_t offset, uint64_t bytes,
	const _Atomic int *stop);

enum msg_readback __wrap_overwrite_range(
	int media_fd, uint64_t offset, uint64_t bytes, const _Atomic int *stop)
{
	enum msg_readback readback;

	points_at(POINT_KEYMGR_SCRUB);
	readback = __real_overwrite_range(media_fd, offset, bytes, stop);
	points_at(POINT_KEYMGR_SCRUBBED);
	return readback;
}

WRAP(enum secpool_error, hotplug_handle_begin, struct server_connection *connection,
	struct msg *msg, struct sock_extra *extra);

enum secpool_error __wrap_hotplug_handle_begin(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	points_at(POINT_KEYMGR_BEGIN);
	return __real_hotplug_handle_begin(connection, msg, extra);
}

WRAP(enum secpool_error, hotplug_handle_evidence, struct server_connection *connection,
	struct msg *msg, struct sock_extra *extra);

enum secpool_error __wrap_hotplug_handle_evidence(
	struct server_connection *connection, struct msg *msg, struct sock_extra *extra)
{
	points_at(POINT_KEYMGR_EVIDENCE);
	return __real_hotplug_handle_evidence(connection, msg, extra);
}

WRAP(enum secpool_error, auditlog_keep, void *arg, const char *line, bool wait);

/* A line "" is the enclave's wait for all records before. */
enum secpool_error __wrap_auditlog_keep(void *arg, const char *line, bool wait)
{
	enum secpool_error error;

	points_at(line[0] ? POINT_KEYMGR_AUDIT_APPEND : POINT_KEYMGR_AUDIT_SYNC);
	error = __real_auditlog_keep(arg, line, wait);
	points_at(line[0] ? POINT_KEYMGR_AUDIT_APPENDED : POINT_KEYMGR_AUDIT_SYNCED);
	return error;
}

WRAP(enum secpool_error, auditlog_sync, struct auditlog *log);

enum secpool_error __wrap_auditlog_sync(struct auditlog *log)
{
	enum secpool_error error;

	points_at(POINT_KEYMGR_AUDIT_SYNC);
	error = __real_auditlog_sync(log);
	points_at(POINT_KEYMGR_AUDIT_SYNCED);
	return error;
}

WRAP(enum secpool_error, daemon_ask_within, struct daemon *daemon, uint64_t wait_ns,
	struct msg *request, int fd, uint32_t want, struct msg *ret_answer);

/* The steps of a new generation. */
enum secpool_error __wrap_daemon_ask_within(struct daemon *daemon, uint64_t wait_ns,
	struct msg *request, int fd, uint32_t want, struct msg *ret_answer)
{
	enum secpool_error error;

	if (request->type == MSG_ENC_ANCHOR_SEAL)
		points_at(POINT_KEYMGR_ANCHOR_SEAL);
	if (request->type == MSG_ENC_ANCHOR_END)
		points_at(POINT_KEYMGR_ANCHOR_COUNT);
	error = __real_daemon_ask_within(daemon, wait_ns, request, fd, want, ret_answer);
	if (request->type == MSG_ENC_ANCHOR_SEAL)
		points_at(POINT_KEYMGR_ANCHOR_WRITE);
	if (request->type == MSG_ENC_ANCHOR_END)
		points_at(POINT_KEYMGR_ANCHOR_APPLY);
	return error;
}

WRAP(enum secpool_error, keyfile_take_next, const struct keyfile_root *root, const char *state_dir);

enum secpool_error __wrap_keyfile_take_next(const struct keyfile_root *root, const char *state_dir)
{
	enum secpool_error error;

	points_at(POINT_KEYMGR_ANCHOR_TAKE);
	error = __real_keyfile_take_next(root, state_dir);
	points_at(POINT_KEYMGR_ANCHOR_TAKEN);
	return error;
}
