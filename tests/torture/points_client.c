/* SPDX-License-Identifier: Apache-2.0 */
/* The library's functions at which a client of the torture can be stopped (tests/rules.mk: the linker's --wrap). */
#include <stdlib.h>

#include "lib/device.h"
#include "lib/keyclient.h"
#include "lib/keyring.h"
#include "lib/mirror.h"
#include "lib/erasure.h"
#include "lib/renew.h"
#include "lib/stripework.h"
#include "lib/uffd.h"
#include "tests/torture/points.h"

#define WRAP(type, name, ...)                                                                      \
	type __real_##name(__VA_ARGS__);                                                           \
	type __wrap_##name(__VA_ARGS__)

static void at_device(enum point point, const struct device *device)
{
	if (points_file &&
		atomic_load_explicit(&points_file->armed, memory_order_relaxed) == (uint32_t)point)
		points_stop(point, (uint32_t)strtoul(device->id + 3, NULL, 10));
}

WRAP(bool, page_step, struct page *page, uint64_t *seen, enum page_event event, unsigned copies,
	uint64_t version);

bool __wrap_page_step(
	struct page *page, uint64_t *seen, enum page_event event, unsigned copies, uint64_t version)
{
	bool done;

	if (event == PAGE_FILL_CLEAN || event == PAGE_FILL_DIRTY)
		points_at(POINT_FILL_END);
	else if (event == PAGE_FILL_WRITTEN)
		points_at(POINT_CALL_WRITTEN);
	else if (event == PAGE_EVICT_WRITTEN)
		points_at(POINT_EVICT_WRITTEN);
	else if (event == PAGE_EVICT_DONE)
		points_at(POINT_EVICT_DONE);
	done = __real_page_step(page, seen, event, copies, version);
	if (done && event == PAGE_FILL_BEGIN)
		points_at(POINT_FILL_BEGIN);
	else if (done && event == PAGE_EVICT_BEGIN)
		points_at(POINT_EVICT_BEGIN);
	return done;
}

WRAP(bool, page_drop_copies, struct page *page, unsigned copies);

bool __wrap_page_drop_copies(struct page *page, unsigned copies)
{
	points_at(POINT_LOSS_STRIKE);
	return __real_page_drop_copies(page, copies);
}

WRAP(enum secpool_error, device_read, struct device *device, uint64_t offset, void *to,
	size_t bytes);

enum secpool_error __wrap_device_read(
	struct device *device, uint64_t offset, void *to, size_t bytes)
{
	at_device(POINT_FILL_READ, device);
	return __real_device_read(device, offset, to, bytes);
}

WRAP(enum secpool_error, device_use, struct device *device, uint64_t offset, size_t bytes,
	uint8_t *copy, guarded_work *work, void *arg);

enum secpool_error __wrap_device_use(struct device *device, uint64_t offset, size_t bytes,
	uint8_t *copy, guarded_work *work, void *arg)
{
	at_device(POINT_FILL_READ, device);
	return __real_device_use(device, offset, bytes, copy, work, arg);
}

WRAP(enum secpool_error, device_write, struct device *device, uint64_t offset, const void *from,
	size_t bytes);

enum secpool_error __wrap_device_write(
	struct device *device, uint64_t offset, const void *from, size_t bytes)
{
	enum secpool_error error;

	at_device(POINT_WRITE_BEFORE, device);
	error = __real_device_write(device, offset, from, bytes);
	at_device(POINT_WRITE_AFTER, device);
	return error;
}

WRAP(enum secpool_error, uffd_copy, const struct uffd *uffd, void *to, const void *from,
	size_t bytes, bool protect);

enum secpool_error __wrap_uffd_copy(
	const struct uffd *uffd, void *to, const void *from, size_t bytes, bool protect)
{
	points_at(POINT_FILL_MAP);
	return __real_uffd_copy(uffd, to, from, bytes, protect);
}

WRAP(enum secpool_error, uffd_move, const struct uffd *uffd, void *to, void *from, size_t bytes);

enum secpool_error __wrap_uffd_move(const struct uffd *uffd, void *to, void *from, size_t bytes)
{
	points_at(POINT_EVICT_MOVE);
	return __real_uffd_move(uffd, to, from, bytes);
}

WRAP(enum secpool_error, uffd_protect, const struct uffd *uffd, void *start, size_t bytes);

enum secpool_error __wrap_uffd_protect(const struct uffd *uffd, void *start, size_t bytes)
{
	points_at(POINT_EVICT_PROTECT);
	return __real_uffd_protect(uffd, start, bytes);
}

WRAP(enum secpool_error, uffd_unprotect, const struct uffd *uffd, void *start, size_t bytes);

enum secpool_error __wrap_uffd_unprotect(const struct uffd *uffd, void *start, size_t bytes)
{
	points_at(POINT_UNPROTECT);
	return __real_uffd_unprotect(uffd, start, bytes);
}

WRAP(enum secpool_error, uffd_drop_many, const struct uffd *uffd, const struct iovec *ranges,
	unsigned count);

enum secpool_error __wrap_uffd_drop_many(
	const struct uffd *uffd, const struct iovec *ranges, unsigned count)
{
	points_at(POINT_EVICT_DROP);
	return __real_uffd_drop_many(uffd, ranges, count);
}

WRAP(bool, stripework_store, const struct hand *hand, unsigned lane, const uint8_t *bytes);

bool __wrap_stripework_store(const struct hand *hand, unsigned lane, const uint8_t *bytes)
{
	points_at(POINT_PARITY_BEFORE);
	return __real_stripework_store(hand, lane, bytes);
}

WRAP(void, stripework_note_written, const struct hand *hand, unsigned written, unsigned included,
	uint64_t clear);

void __wrap_stripework_note_written(
	const struct hand *hand, unsigned written, unsigned included, uint64_t clear)
{
	points_at(POINT_PARITY_NOTED);
	__real_stripework_note_written(hand, written, included, clear);
}

WRAP(bool, mirror_rebuild, struct worker *worker, struct secpool_region *region, uint64_t pgno,
	uint64_t seen, bool checks);

bool __wrap_mirror_rebuild(struct worker *worker, struct secpool_region *region, uint64_t pgno,
	uint64_t seen, bool checks)
{
	points_at(POINT_REBUILD_PAGE);
	return __real_mirror_rebuild(worker, region, pgno, seen, checks);
}

WRAP(bool, mirror_move, struct worker *worker, struct secpool_region *region, uint64_t pgno,
	struct target *target);

bool __wrap_mirror_move(
	struct worker *worker, struct secpool_region *region, uint64_t pgno, struct target *target)
{
	points_at(POINT_MOVE_PAGE);
	return __real_mirror_move(worker, region, pgno, target);
}

WRAP(bool, erasure_move, struct worker *worker, struct secpool_region *region, uint64_t number,
	struct target *target);

bool __wrap_erasure_move(struct worker *worker, struct secpool_region *region, uint64_t number,
	struct target *target)
{
	points_at(POINT_MOVE_STRIPE);
	return __real_erasure_move(worker, region, number, target);
}

WRAP(bool, erasure_rebuild, struct worker *worker, struct secpool_region *region, uint64_t number,
	bool check);

bool __wrap_erasure_rebuild(
	struct worker *worker, struct secpool_region *region, uint64_t number, bool check)
{
	points_at(POINT_REBUILD_STRIPE);
	return __real_erasure_rebuild(worker, region, number, check);
}

WRAP(enum renewal, renew_page, struct worker *worker, struct secpool_region *region, uint64_t pgno);

enum renewal __wrap_renew_page(struct worker *worker, struct secpool_region *region, uint64_t pgno)
{
	points_at(POINT_ROTATE_PAGE);
	return __real_renew_page(worker, region, pgno);
}

WRAP(enum secpool_error, keyring_seal, struct keyring *ring, unsigned worker, uint64_t pgno,
	uint64_t version, const void *plain, void *ciphertext, uint8_t tag[PAGECIPHER_TAG_BYTES]);

enum secpool_error __wrap_keyring_seal(struct keyring *ring, unsigned worker, uint64_t pgno,
	uint64_t version, const void *plain, void *ciphertext, uint8_t tag[PAGECIPHER_TAG_BYTES])
{
	/* anybody's page while the region is rotated */
	if (points_file && ring->ciphers[0] && ring->ciphers[1])
		points_at(POINT_ROTATE_SEAL);
	return __real_keyring_seal(ring, worker, pgno, version, plain, ciphertext, tag);
}

WRAP(void, keyring_turn, struct keyring *ring, struct pagecipher **cipher);

void __wrap_keyring_turn(struct keyring *ring, struct pagecipher **cipher)
{
	points_at(POINT_ROTATE_TURN);
	__real_keyring_turn(ring, cipher);
}

WRAP(void, keyring_retire, struct keyring *ring);

void __wrap_keyring_retire(struct keyring *ring)
{
	points_at(POINT_ROTATE_RETIRE);
	__real_keyring_retire(ring);
}

WRAP(enum secpool_error, keyclient_call, struct keyclient *client, struct msg *request,
	uint32_t want, struct msg *ret_answer);

enum secpool_error __wrap_keyclient_call(
	struct keyclient *client, struct msg *request, uint32_t want, struct msg *ret_answer)
{
	uint32_t type = request->type;
	enum secpool_error error;

	if (type == MSG_REGION_CREATE)
		points_at(POINT_CREATE_ASK);
	else if (type == MSG_REGION_REPLACE)
		points_at(POINT_REPLACE_ASK);
	else if (type == MSG_REGION_MOVE)
		points_at(POINT_MOVE_ASK);
	else if (type == MSG_REGION_MOVED)
		points_at(POINT_MOVED_ASK);
	else if (type == MSG_REGION_ROTATE)
		points_at(POINT_ROTATE_ASK);
	else if (type == MSG_REGION_ROTATED)
		points_at(POINT_ROTATED_ASK);
	error = __real_keyclient_call(client, request, want, ret_answer);
	if (type == MSG_REGION_CREATE)
		points_at(POINT_CREATE_ASKED);
	else if (type == MSG_REGION_REPLACE)
		points_at(POINT_REPLACE_ASKED);
	else if (type == MSG_REGION_MOVE)
		points_at(POINT_MOVE_ASKED);
	else if (type == MSG_REGION_MOVED)
		points_at(POINT_MOVED_ASKED);
	else if (type == MSG_REGION_ROTATE)
		points_at(POINT_ROTATE_ASKED);
	else if (type == MSG_REGION_ROTATED)
		points_at(POINT_ROTATED_ASKED);
	return error;
}

WRAP(enum secpool_error, keyclient_send, struct keyclient *client, struct msg *request,
	uint32_t *ret_number);

enum secpool_error __wrap_keyclient_send(
	struct keyclient *client, struct msg *request, uint32_t *ret_number)
{
	if (request->type == MSG_REGION_RELEASE)
		points_at(POINT_RELEASE_ASK);
	return __real_keyclient_send(client, request, ret_number);
}
