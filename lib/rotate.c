/* SPDX-License-Identifier: Apache-2.0 */
#include "lib/rotate.h"

#include <assert.h>

#include "lib/base/clock.h"
#include "lib/rebuild.h"
#include "lib/region.h"
#include "lib/renew.h"
#include "lib/service.h"

/* Pages looked at in one piece, and bytes written anew: the service has other things to do between. */
enum { LOOK_PAGES = 4096, PIECE_BYTES = 256 << 10 };

/* Until a page that somebody has, and one that can't be written, is looked at again. */
#define LATER_NS (1ull * CLOCK_NS_PER_MS)
#define STUCK_NS (100ull * CLOCK_NS_PER_MS)

/* Until keymgrd, which refused, is asked again: twice as long each time. */
#define ASK_NS_LEAST (100ull * CLOCK_NS_PER_MS)
#define ASK_NS_MOST  (5ull * CLOCK_NS_PER_S)

/* How often it is looked how much a key has sealed: so often in the time that the fastest program needs for what it may. */
#define WRITTEN_PER_S (16ull << 30)
enum { LOOKS = 4 };
#define LOOK_NS_LEAST (100ull * CLOCK_NS_PER_MS)
#define LOOK_NS_MOST  (60ull * CLOCK_NS_PER_S)

enum { BLOCK_BYTES = 16 };

/* entries hold next state + 1, so that a missing one is 0 and refused */
#define TO(state) ((state) + 1)

static const uint8_t table[ROTATION_STATES][ROTATION_EVENTS] = {
	[ROTATION_NONE] =
		{[ROTATION_WANT] = TO(ROTATION_WANTED), [ROTATION_ENDED] = TO(ROTATION_NONE)},
	[ROTATION_WANTED] = {[ROTATION_WANT] = TO(ROTATION_WANTED),
		[ROTATION_TURNED] = TO(ROTATION_MOVING),
		[ROTATION_ENDED] = TO(ROTATION_NONE)},
	/* what is wanted while one is under way keymgrd asks for again when it is told of its end */
	[ROTATION_MOVING] = {[ROTATION_WANT] = TO(ROTATION_MOVING),
		[ROTATION_MOVED] = TO(ROTATION_TELLING),
		[ROTATION_ENDED] = TO(ROTATION_NONE)},
	[ROTATION_TELLING] = {[ROTATION_WANT] = TO(ROTATION_TELLING),
		[ROTATION_TOLD] = TO(ROTATION_NONE),
		[ROTATION_ENDED] = TO(ROTATION_NONE)},
};

unsigned rotation_next(unsigned state, unsigned event)
{
	if (state >= ROTATION_STATES || event >= ROTATION_EVENTS || table[state][event] == 0)
		return ROTATION_STATES;
	return table[state][event] - 1u;
}

const char *rotation_state_name(unsigned state)
{
	static const char *const names[ROTATION_STATES] = {"none", "wanted", "moving", "telling"};

	return state < ROTATION_STATES ? names[state] : "?";
}

const char *rotation_event_name(unsigned event)
{
	static const char *const names[ROTATION_EVENTS] = {
		"want", "turned", "moved", "told", "ended"};

	return event < ROTATION_EVENTS ? names[event] : "?";
}

static void step(struct secpool_region *region, enum rotation_event event)
{
	unsigned next = rotation_next(region->rotation.state, event);

	assert(next != ROTATION_STATES);
	region->rotation.state = (enum rotation_state)next;
	region->rotation.due_ns = region->rotation.wait_ns = 0;
}

static bool names(const struct msg_region_renew *renew, uint64_t id)
{
	for (uint32_t i = 0; i < renew->region_count && i < MSG_RENEW_MAX; i++)
		if (renew->regions[i] == id)
			return true;
	return false;
}

void rotate_want(struct secpool *pool, const struct msg_region_renew *renew)
{
	for (unsigned slot = 0; slot < pool->region_slots; slot++) {
		struct secpool_region *region = pool->regions[slot];
		if (region && names(renew, region->id) && !atomic_load(&region->ended))
			step(region, ROTATION_WANT);
	}
}

void rotate_end(struct secpool_region *region)
{
	step(region, ROTATION_ENDED);
}

/* ---- keymgrd ---- */

/* It refused: it is asked again after a while. A session that is too old gives no keys; a new one does. */
static void put_off(struct secpool *pool, struct secpool_region *region, enum secpool_error error)
{
	struct rotation *rotation = &region->rotation;

	rotation->wait_ns = rotation->wait_ns == 0 ? ASK_NS_LEAST : 2 * rotation->wait_ns;
	if (rotation->wait_ns > ASK_NS_MOST)
		rotation->wait_ns = ASK_NS_MOST;
	rotation->due_ns = clock_now_ns() + rotation->wait_ns;
	if (error == SECPOOL_E_SESSION_EXPIRED)
		service_renew_session(pool->service);
}

static void ask(struct secpool *pool, struct secpool_region *region)
{
	struct msg request = {.type = MSG_REGION_ROTATE}, answer;
	struct pagecipher *cipher = NULL;
	enum secpool_error error;

	request.u.region_rotate.region = region->id;
	request.u.region_rotate.epoch = region->epoch;
	error = keyclient_call(&pool->service->client, &request, MSG_REGION_ROTATING, &answer);
	if (!error && answer.u.region_rotating.epoch <= region->epoch)
		error = err_set(SECPOOL_E_PROTOCOL, "keymgrd named an epoch that was before");
	if (!error)
		error = region_take_key(pool, region, answer.u.region_rotating.epoch, &cipher);
	if (error) {
		put_off(pool, region, error);
		return;
	}
	region->epoch = answer.u.region_rotating.epoch;
	keyring_turn(&region->keys, &cipher);
	/* whoever began before may still seal under the old key; nobody does after this */
	workers_await(pool);
	region->rotation =
		(struct rotation){.state = region->rotation.state, .began_ns = clock_now_ns()};
	step(region, ROTATION_TURNED);
}

static void tell(struct secpool *pool, struct secpool_region *region)
{
	struct msg request = {.type = MSG_REGION_ROTATED};
	enum secpool_error error;

	request.u.region_rotated.region = region->id;
	request.u.region_rotated.epoch = region->epoch;
	error = keyclient_call(&pool->service->client, &request, MSG_REPLY, NULL);
	if (error)
		put_off(pool, region, error);
	else
		step(region, ROTATION_TOLD);
}

/* ---- the walk ---- */

static uint64_t next_allowed(const struct secpool *pool, const struct rotation *rotation)
{
	return rebuild_allowed_ns(rotation->began_ns, rotation->bytes,
		pool->service->client.session.rebuild_bytes_per_second);
}

/* No page is under the old key: who may have read one that was is waited for, and the key is no more. */
static void end_walk(struct secpool *pool, struct secpool_region *region)
{
	workers_await(pool);
	keyring_retire(&region->keys);
	step(region, ROTATION_MOVED);
	rebuild_tell(pool, region, MSG_PROGRESS_ROTATION, region->bytes, region->bytes, true);
}

/* A piece of a round. Returns when to go on. */
static uint64_t walk(struct secpool *pool, struct secpool_region *region)
{
	struct rotation *rotation = &region->rotation;
	uint64_t now = clock_now_ns(), due = next_allowed(pool, rotation);
	unsigned looked = 0;
	size_t done_bytes = 0;

	for (; due <= now && rotation->next < region->page_count; rotation->next++) {
		enum renewal renewal;
		if (looked++ >= LOOK_PAGES || done_bytes >= PIECE_BYTES)
			return now;
		renewal = renew_page(pool_service_worker(pool), region, rotation->next);
		if (renewal == RENEWAL_LATER || renewal == RENEWAL_STUCK)
			return now + (renewal == RENEWAL_LATER ? LATER_NS : STUCK_NS);
		if (renewal == RENEWAL_NONE)
			continue;
		rotation->met++;
		done_bytes += region->page_bytes;
		rotation->bytes += region->page_bytes;
		due = next_allowed(pool, rotation);
	}
	if (rotation->next < region->page_count)
		return due;
	/* one more round, until nothing was met: only then it is sure that nothing is left */
	rotation->again = rotation->met > 0;
	rotation->next = rotation->met = 0;
	if (!rotation->again)
		end_walk(pool, region);
	return now;
}

static uint64_t move_pages(struct secpool *pool, struct secpool_region *region)
{
	const struct rotation *rotation = &region->rotation;
	uint64_t due;

	/* what lacks copies first: the new key is in use already, and a walk for each would only take turns */
	if (region->rebuild.active)
		return clock_now_ns() + LATER_NS;
	due = walk(pool, region);

	if (rotation->state == ROTATION_MOVING) /* as long as that is not sure, not all is done */
		rebuild_tell(pool, region, MSG_PROGRESS_ROTATION,
			rotation->again ? region->bytes - region->page_bytes
					: rotation->next * region->page_bytes,
			region->bytes, false);
	return due;
}

/* ---- when ---- */

uint64_t rotation_soft_bytes(uint64_t bytes, uint64_t region_bytes, unsigned workers)
{
	uint64_t most = PAGECIPHER_BLOCKS_SOFT * BLOCK_BYTES;
	uint64_t shares = (uint64_t)workers * PAGECIPHER_SHARE_BLOCKS * BLOCK_BYTES;

	if (bytes == 0 || bytes > most || region_bytes > most / 2 - shares)
		return most;
	return bytes > 2 * (region_bytes + shares) ? bytes : 2 * (region_bytes + shares);
}

/* Looks whether the key has sealed enough. Returns when to look again. */
static uint64_t look(struct secpool *pool, struct secpool_region *region)
{
	uint64_t bytes = pool->service->client.session.rotate_after_bytes;
	uint64_t ns = bytes / LOOKS / (WRITTEN_PER_S / CLOCK_NS_PER_S);

	if (keyring_blocks(&region->keys) >=
		rotation_soft_bytes(bytes, region->bytes, pool->workers.count) / BLOCK_BYTES) {
		step(region, ROTATION_WANT);
		return clock_now_ns();
	}
	return clock_now_ns() + (ns < LOOK_NS_LEAST	    ? LOOK_NS_LEAST
					: ns > LOOK_NS_MOST ? LOOK_NS_MOST
							    : ns);
}

static uint64_t rotate_region(struct secpool *pool, struct secpool_region *region)
{
	struct rotation *rotation = &region->rotation;

	if (rotation->state == ROTATION_MOVING)
		return move_pages(pool, region);
	if (clock_now_ns() < rotation->due_ns)
		return rotation->due_ns;
	if (rotation->state == ROTATION_NONE) {
		rotation->due_ns = look(pool, region);
		return rotation->due_ns;
	}
	if (pool->service->client.fd < 0)
		return 0; /* the service wakes up when keymgrd is back */
	if (rotation->state == ROTATION_WANTED)
		ask(pool, region);
	else
		tell(pool, region);
	return rotation->due_ns ? rotation->due_ns : clock_now_ns();
}

uint64_t rotate_some(struct secpool *pool)
{
	uint64_t due = 0;

	for (unsigned slot = 0; slot < pool->region_slots; slot++) {
		struct secpool_region *region = pool->regions[slot];
		uint64_t next;
		if (!region || atomic_load(&region->ended) || region_still(region))
			continue;
		next = rotate_region(pool, region);
		due = due == 0 || (next != 0 && next < due) ? next : due;
	}
	return due;
}
