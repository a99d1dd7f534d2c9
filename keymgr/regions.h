/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of the regions table. A region is `creating` until its wrapped key is stored, then `live`, perhaps `sealed` (sealed.h), then `releasing` until
 * its space is scrubbed and its receipt stored; then the row is gone. Numbers are never used again.
 * Threads: one (the loop's).
 */
#ifndef SECPOOL_KEYMGR_REGIONS_H
#define SECPOOL_KEYMGR_REGIONS_H

#include "keymgr/directory.h"
#include "keymgr/extents.h"
#include "lib/base/os.h"
#include "lib/wire/msg.h"

/* MSG_REGION_LIVE and MSG_REGION_RELEASING, and the state before. */
enum { REGIONS_CREATING = 0 };

struct regions_row {
	uint64_t id, address, bytes, page_bytes, epoch;
	uint64_t wrap; /* the slot of its wrapped key (wraps.h), 0: none */
	uint64_t next_epoch, next_wrap; /* while it is rotated (epochs.h): of the key that its pages move to; 0: it is not */
	bool rotate;   /* its client is to ask for a new key */
	uint32_t data, lanes, on_loss, signal, uid, state; /* data, lanes: msg_region_create */
	struct os_process process;
	char tenant[MSG_NAME_BYTES], name[MSG_NAME_BYTES];
	/* of a region that is releasing */
	uint64_t released_ns, destroyed_ns, generation, scrubbed_bytes, unreachable_bytes, differed;
	uint32_t client; /* enum msg_client_end */
};

/*
 * What a tenant uses of its quota. regions: those that are not being released. bytes: of all its regions, without redundancy, in whole
 * EXTENTS_UNIT_BYTES, until their space is scrubbed; and what a region holds beyond its lanes (places that were set aside).
 */
struct regions_use {
	uint64_t regions, bytes;
};

/* How many receipts are kept; older ones were sent to whoever waited for them, and the chain goes on from the newest. */
enum { REGIONS_RECEIPTS_KEPT = 100000 };

/* Bytes as they count for the quota: rounded up to EXTENTS_UNIT_BYTES; UINT64_MAX where that does not fit. */
uint64_t regions_quota_bytes(uint64_t bytes);

/* Bytes of one of the region's lanes. */
uint64_t regions_lane_bytes(const struct regions_row *row);

/*
 * Makes the row (state creating) with its address and space, in one change; fills in row->id, address and epoch.
 * Errors: those of addresses_take and extents_take; nothing is changed then.
 */
enum secpool_error regions_create(struct directory *directory, struct regions_row *row,
	uint64_t window_base, uint64_t window_bytes, const struct extents_device *devices,
	size_t device_count) MUST_USE;

/* The row that the statement gives: SELECT REGIONS_COLUMNS, with the number ?1. Errors: SECPOOL_E_NOT_FOUND, SECPOOL_E_STORE. */
#define REGIONS_COLUMNS                                                                            \
	"id, address, bytes, page_bytes, epoch, data, on_loss, uid, state, pid, start_ticks,"      \
	" tenant, name, released_ns, destroyed_ns, generation, scrubbed_bytes, unreachable_bytes," \
	" differed, client, wrap, lanes, signal, next_epoch, next_wrap, rotate"
enum { REGIONS_COLUMN_COUNT = 26 }; /* of these: what a statement gives besides comes behind */
enum secpool_error regions_select(struct directory *directory, const char *sql, uint64_t number,
	struct regions_row *ret_row) MUST_USE;
/* The same of a query that is under way. */
void regions_read_row(struct directory_rows *rows, struct regions_row *ret_row);

/* The region's wrapped key is stored in this slot: it is live. */
enum secpool_error regions_set_live(
	struct directory *directory, uint64_t region, uint64_t wrap) MUST_USE;

/* Errors: SECPOOL_E_NOT_FOUND, SECPOOL_E_STORE. */
enum secpool_error regions_find(
	struct directory *directory, uint64_t region, struct regions_row *ret_row) MUST_USE;
/* The row with the next greater number. Errors: SECPOOL_E_NOT_FOUND at the end, SECPOOL_E_STORE. */
enum secpool_error regions_next(
	struct directory *directory, uint64_t after, struct regions_row *ret_row) MUST_USE;
/* The same of those of a process. */
enum secpool_error regions_next_of(struct directory *directory, const struct os_process *process,
	uint64_t after, struct regions_row *ret_row) MUST_USE;
/* The same of those that are releasing and have no extent any more. */
enum secpool_error regions_next_ended(
	struct directory *directory, uint64_t after, struct regions_row *ret_row) MUST_USE;

/*
 * The row names its wrapped keys no more and all space becomes releasing, in one change: from here on there is no way back. The caller then
 * overwrites the key (wraps_erase); after a crash before that, wraps_open does.
 * A region that is releasing already stays as it is.
 */
enum secpool_error regions_release(
	struct directory *directory, uint64_t region, enum msg_client_end client) MUST_USE;
/*
 * Undoes regions_create in one change: a region that never was live leaves no trace, and no receipt.
 * Errors: SECPOOL_E_NOT_FOUND (it is live, releasing or not there), SECPOOL_E_STORE; nothing is changed.
 */
enum secpool_error regions_undo(struct directory *directory, uint64_t region) MUST_USE;
/* Whether the process has regions that are not being released. */
enum secpool_error regions_of_process(
	struct directory *directory, const struct os_process *process, bool *ret_has) MUST_USE;
/*
 * Whether the tenant's process has a live region (0: any) that has or had space on the device, which meets these bytes of it (0: any).
 */
enum secpool_error regions_touch(struct directory *directory, const struct regions_row *owner,
	uint64_t slot, uint64_t offset, uint64_t bytes, bool *ret_touch) MUST_USE;
enum secpool_error regions_set_destroyed(struct directory *directory, uint64_t region,
	uint64_t destroyed_ns, uint64_t generation) MUST_USE;
/* Adds up what became of a part of its space: overwritten (also when the read-back differed), or not. */
enum secpool_error regions_add_scrubbed(struct directory *directory, uint64_t region,
	enum msg_readback readback, uint64_t bytes) MUST_USE;
/* The media of a device are gone for good: what regions had there counts as unreachable. Called within a change. */
enum secpool_error regions_lose_device(struct directory *directory, uint64_t slot) MUST_USE;
/* The same for releasing space alone, while the device can't be reached; its extents lose their region. Within a change. */
enum secpool_error regions_drop_releasing(struct directory *directory, uint64_t slot) MUST_USE;
/* How many extents it still has, in any state. */
enum secpool_error regions_extents_left(
	struct directory *directory, uint64_t region, uint64_t *ret_count) MUST_USE;

/* The last receipt's number and digest; 0 and zeros when there is none. */
enum secpool_error regions_last_receipt(
	struct directory *directory, uint64_t *ret_number, uint8_t ret_digest[32]) MUST_USE;
/* The receipt is stored and the region's row removed, in one change; receipts beyond REGIONS_RECEIPTS_KEPT go. */
enum secpool_error regions_finish(struct directory *directory, uint64_t region, uint64_t number,
	const char *text, const uint8_t digest[32]) MUST_USE;

enum secpool_error regions_count_use(
	struct directory *directory, const char *tenant, struct regions_use *ret_use) MUST_USE;

#endif
