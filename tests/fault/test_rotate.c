/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Regions of every redundancy get new keys while programs read and write, again and again: nothing is lost, what was copied from the media before is refused afterwards, the key that was stored is nowhere. Also with pages
 * that are pinned, with keymgrd or the program killed in the middle, with a device pulled in the middle, by itself after a pull, by age, by what was written, and with a session that is too old. timeout: 300
 */
#include "tests/fault/load.h"

enum {
	PAGES = 2048,
	LOCAL_BYTES = 4 << 20,
	PINNED_PAGES = 16,
	TURNS = 4,
	MANY = MSG_RENEW_MAX + 8
};

static struct secpool *pool;
static struct secpool_region *region;

/* ---- what keymgrd says ---- */

static bool take_row(const struct msg *row, void *arg)
{
	struct msg_region_row *found = arg;

	if (row->u.region_row.region != found->region)
		return true;
	*found = row->u.region_row;
	return false;
}

static struct msg_region_row row_of(uint64_t number)
{
	struct msg_region_row row = {.region = number};

	if (support_list("keymgr.sock", MSG_LIST_REGIONS, MSG_REGION_ROW, take_row, &row) !=
		SECPOOL_OK)
		row.epoch = 0; /* keymgrd is starting */
	return row;
}

static bool has_epoch(void *arg)
{
	struct msg_region_row row = row_of(secpool_region_number(region));

	return row.epoch >= *(uint64_t *)arg && row.rotation == MSG_ROTATION_NONE;
}

/* Waits until the region has this epoch, or a later one, and no rotation is under way or wanted. */
static void await_epoch(uint64_t epoch)
{
	if (!support_wait(has_epoch, &epoch, LOAD_WAIT_MS))
		support_fail("the region has epoch %llu after %d ms, and rotation %u; not %llu",
			(unsigned long long)row_of(secpool_region_number(region)).epoch,
			LOAD_WAIT_MS, row_of(secpool_region_number(region)).rotation,
			(unsigned long long)epoch);
}

static uint64_t epoch_now(void)
{
	return row_of(secpool_region_number(region)).epoch;
}

static void rotate(bool waits)
{
	char text[512] = "";

	if (support_cli(text, sizeof text, "tenant", "rotate", "alpha", waits ? NULL : "--no-wait",
		    NULL) != 0)
		support_fail("rotate: %s", text);
}

/* ---- a program ---- */

static struct secpool_region *make_single(void)
{
	return load_single(pool, "one", PAGES);
}

static struct secpool_region *make_mirror(void)
{
	return load_redundant(pool, PAGES, false);
}

static struct secpool_region *make_coded(void)
{
	return support_coded(pool, PAGES * LOAD_PAGE, 4, 2);
}

static void begin(struct secpool_region *(*make)(void))
{
	pool = support_open("alpha", LOCAL_BYTES);
	load_catch_bus();
	region = make();
	load_begin(region, PAGES);
	load_await(2000);
}

static void finish(void)
{
	load_end();
	SUPPORT_CHECK(load_lost(region) == 0 && load_stats(pool).lost_pages == 0);
	SUPPORT_OK(secpool_region_release(region, NULL));
	secpool_close(pool);
}

typedef struct secpool_region *maker(void);
static maker *const makers[] = {make_single, make_mirror, make_coded};

/* While the program writes, with some of its pages pinned. */
static int goes_on(void *arg)
{
	uint64_t integrity;

	begin(makers[(uintptr_t)arg]);
	SUPPORT_OK(secpool_pin(region, 0, PINNED_PAGES * LOAD_PAGE));
	for (uint64_t turn = 0; turn < TURNS; turn++) {
		rotate(true);
		if (epoch_now() != 2 + turn)
			support_fail("epoch %llu after %llu rotations",
				(unsigned long long)epoch_now(), (unsigned long long)turn + 1);
		load_await(500);
	}
	SUPPORT_OK(secpool_unpin(region, 0, PINNED_PAGES * LOAD_PAGE));
	integrity = load_stats(pool).integrity_failures;
	if (integrity > 0)
		support_fail("%llu pages failed their check", (unsigned long long)integrity);
	finish();
	return 0;
}

static int goes_on_inline(void *arg)
{
	support_fault_mode = SECPOOL_FAULT_INLINE;
	return goes_on(arg);
}

/* More than one message names. */
static int many_regions(void *arg)
{
	struct secpool_region *regions[MANY];

	(void)arg;
	pool = support_open("alpha", LOCAL_BYTES);
	for (size_t i = 0; i < MANY; i++) {
		regions[i] = support_region(pool, 4 * LOAD_PAGE, 2);
		support_fill(secpool_region_address(regions[i]), LOAD_PAGE, i);
	}
	rotate(true);
	for (size_t i = 0; i < MANY; i++) {
		region = regions[i];
		SUPPORT_CHECK(epoch_now() == 2);
		SUPPORT_CHECK(support_matches(secpool_region_address(region), LOAD_PAGE, i));
		SUPPORT_OK(secpool_region_release(region, NULL));
	}
	secpool_close(pool);
	return 0;
}

/* ---- old ciphertext, old keys ---- */

static uint8_t media[64 << 20], store[2][KEYFILE_SLOT_BYTES], store_after[2][KEYFILE_SLOT_BYTES];

static void use_media(const char *device, bool writes)
{
	int fd = open(support_path("devices/%s/media", device), O_RDWR | O_CLOEXEC);

	SUPPORT_CHECK(fd >= 0);
	SUPPORT_CHECK((writes ? pwrite(fd, media, sizeof media, 0)
			      : pread(fd, media, sizeof media, 0)) == sizeof media);
	close(fd);
}

/* Reads every page where it lies; returns how many can't be had. What can is right. */
static unsigned count_refused(void)
{
	static uint8_t page[LOAD_PAGE];
	unsigned refused = 0;

	for (size_t i = 0; i < PAGES; i++) {
		enum secpool_error error = secpool_read(region, i * LOAD_PAGE, page, sizeof page);
		if (error != SECPOOL_OK && error != SECPOOL_E_LOST)
			support_fail("page %zu: %s", i, secpool_strerror(error));
		refused += error == SECPOOL_E_LOST;
		if (!error && !support_matches(page, LOAD_PAGE, i))
			support_fail("page %zu is not what was written", i);
	}
	return refused;
}

/* What regions before have left of the key store is erased for good, and the first slots are free again. */
static void free_slots(void)
{
	char text[512];

	if (support_cli(text, sizeof text, "keystore", "anchor", NULL) != 0)
		support_fail("keystore anchor: %s", text);
}

/* The bytes are the same before and after, and only the key is another: what was copied before opens no more. */
static int old_is_refused(void *arg)
{
	static uint8_t page[LOAD_PAGE];
	char device[8];

	(void)arg;
	free_slots();
	pool = support_open("alpha", LOCAL_BYTES);
	region = make_single();
	for (size_t i = 0; i < PAGES; i++) {
		support_fill(page, LOAD_PAGE, i);
		SUPPORT_OK(secpool_write(region, i * LOAD_PAGE, page, sizeof page));
	}
	load_find_device("one", device);
	load_read_store(1, store);
	SUPPORT_CHECK(load_count_in_state(store[0]) == 1);
	use_media(device, false);
	/* without a rotation it is what is there */
	use_media(device, true);
	SUPPORT_CHECK(count_refused() == 0);
	rotate(true);
	SUPPORT_CHECK(count_refused() == 0);
	SUPPORT_CHECK(load_count_in_state(store[0]) == 0);
	load_read_store(2, store_after);
	SUPPORT_CHECK(load_count_in_state(store_after[1]) == 1);
	use_media(device, true);
	if (count_refused() != PAGES)
		support_fail("old pages are taken for new ones");
	SUPPORT_OK(secpool_region_release(region, NULL));
	SUPPORT_CHECK(load_count_in_state(store_after[1]) == 0);
	secpool_close(pool);
	return 0;
}

/* ---- killed in the middle ---- */

static bool take_enclave(const struct msg *row, void *arg)
{
	const struct msg_status_row *status = &row->u.status_row;

	if (strcmp(status->name, "enclave") != 0)
		return true;
	*(int *)arg = atoi(status->value + strlen("pid "));
	return false;
}

static bool is_gone(void *arg)
{
	return kill(*(pid_t *)arg, 0) != 0;
}

/* Its front ends with it. */
static void kill_enclave(void)
{
	pid_t front = support_daemon("keymgrd");
	int enclave = 0;

	SUPPORT_OK(support_list(
		"keymgr.sock", MSG_LIST_STATUS, MSG_STATUS_ROW, take_enclave, &enclave));
	SUPPORT_CHECK(enclave > 1 && front > 1 && kill(enclave, SIGKILL) == 0);
	if (!support_wait(is_gone, &front, LOAD_WAIT_MS))
		support_fail("keymgrd goes on without its enclave");
}

/* After different times: before the key is asked for, while pages move, when all have moved. */
static int keymgrd_dies(void *arg)
{
	begin(makers[(uintptr_t)arg]);
	for (unsigned ms = 0; ms <= 40; ms += 8) {
		uint64_t epoch = epoch_now();
		rotate(false);
		clock_sleep_ns(ms * CLOCK_NS_PER_MS);
		if (ms % 16 == 0)
			support_kill_daemon("keymgrd");
		else
			kill_enclave();
		load_await(200);
		support_up(7, "64M", NULL);
		await_epoch(epoch + 1);
		load_await(200);
	}
	finish();
	return 0;
}

static bool holds_key(const uint8_t *slot)
{
	const uint8_t *key;
	size_t bytes = 0;

	return keyfile_get_slot(slot, &key, &bytes) && bytes > 0;
}

static int write_until_killed(void *arg)
{
	const int *ready = arg;

	begin(make_mirror);
	SUPPORT_CHECK(write(ready[1], "", 1) == 1);
	load_await(1ull << 40);
	return 1;
}

/* The program ends while its pages move: both of its keys end with it. */
static void test_client_dies(void)
{
	static uint8_t before[2][KEYFILE_SLOT_BYTES];
	int ready[2], keys = 0;
	char byte;
	pid_t pid;

	free_slots();
	SUPPORT_CHECK(pipe(ready) == 0);
	pid = support_fork(write_until_killed, ready);
	close(ready[1]);
	SUPPORT_CHECK(read(ready[0], &byte, 1) == 1);
	close(ready[0]);
	rotate(false);
	clock_sleep_ns(3 * CLOCK_NS_PER_MS);
	load_read_store(2, before);
	SUPPORT_CHECK(kill(pid, SIGKILL) == 0);
	SUPPORT_CHECK(support_join(pid, LOAD_WAIT_MS) == 128 + SIGKILL);
	support_wait_regions(0, LOAD_WAIT_MS);
	for (int i = 0; i < 2; i++) {
		keys += holds_key(before[i]);
		if (holds_key(before[i]) && load_count_in_state(before[i]) != 0)
			support_fail("the key in slot %d outlived its program", i);
	}
	SUPPORT_CHECK(keys > 0);
}

/* ---- devices ---- */

static void find_used(char device[8])
{
	struct msg_region_row row = row_of(secpool_region_number(region));

	snprintf(device, 8, "%.4s", row.devices);
	SUPPORT_CHECK(strncmp(device, "dev", 3) == 0);
}

/* One that is pulled while pages move: nothing is lost, and the rotation that the loss asks for comes after it. */
static int pulled_in_the_middle(void *arg)
{
	struct secpool_event event;
	char device[8];

	begin(makers[(uintptr_t)arg]);
	find_used(device);
	rotate(false);
	clock_sleep_ns(2 * CLOCK_NS_PER_MS);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", device, NULL) == 0);
	if (!support_event(pool, SECPOOL_EVENT_REGION_WHOLE, LOAD_WAIT_MS, &event))
		support_fail("the region did not get whole again");
	await_epoch(3);
	load_await(1000);
	finish();
	load_plug(device);
	return 0;
}

/* Nobody asks for it but the loss. The key that lay under what was pulled is not stored any more, and its program has another. */
static int rotates_after_a_pull(void *arg)
{
	uint64_t epoch;
	char device[8];

	free_slots();
	begin(makers[(uintptr_t)arg]);
	find_used(device);
	load_read_store(1, store);
	SUPPORT_CHECK(load_count_in_state(store[0]) == 1);
	SUPPORT_CHECK(support_cli(NULL, 0, "device", "pull", device, NULL) == 0);
	await_epoch(2);
	SUPPORT_CHECK(load_count_in_state(store[0]) == 0);
	load_await_events("key-rotated", NULL, "the key of epoch 1 is destroyed", 1);
	/* a keymgrd that finds the device away at its start does not begin again: nothing under the new key was there */
	epoch = epoch_now();
	support_kill_daemon("keymgrd");
	support_up(7, "64M", NULL);
	load_await(1000);
	clock_sleep_ns(7 * CLOCK_NS_PER_S); /* keymgr/missing.h: 5 s */
	if (epoch_now() != epoch)
		support_fail("rotated again to epoch %llu", (unsigned long long)epoch_now());
	finish();
	load_plug(device);
	return 0;
}

/* ---- by itself ---- */

static int rotates_by_itself(void *arg)
{
	begin(make_mirror);
	await_epoch((uint64_t)(uintptr_t)arg);
	finish();
	return 0;
}

/* A session that gives no keys any more is made anew, and the program does not notice. */
static int session_is_renewed(void *arg)
{
	struct secpool_event event;

	(void)arg;
	begin(make_mirror);
	clock_sleep_ns(3 * CLOCK_NS_PER_S);
	rotate(true);
	SUPPORT_CHECK(epoch_now() == 2);
	if (support_event(pool, SECPOOL_EVENT_DAEMON_GONE, 200, &event))
		support_fail("the program was told that keymgrd is gone");
	finish();
	return 0;
}

static enum secpool_error ask_rotate(int fd, uint64_t number, uint64_t epoch, uint64_t *ret_epoch)
{
	struct msg msg = {.type = MSG_REGION_ROTATE}, answer;
	enum secpool_error error;
	int key = -1;

	msg.u.region_rotate.region = number;
	msg.u.region_rotate.epoch = epoch;
	error = support_ask(fd, &msg, MSG_REGION_ROTATING, &answer, &key);
	if (!error)
		*ret_epoch = answer.u.region_rotating.epoch;
	SUPPORT_CHECK((key >= 0) == !error);
	close(key);
	return error;
}

static enum secpool_error tell_rotated(int fd, uint64_t number, uint64_t epoch)
{
	struct msg msg = {.type = MSG_REGION_ROTATED}, answer;

	msg.u.region_rotated.region = number;
	msg.u.region_rotated.epoch = epoch;
	return support_ask(fd, &msg, MSG_REPLY, &answer, NULL);
}

/* What keymgrd takes from a client, and what it refuses: the two keys that a region may have, and no others. */
static int on_the_wire(void *arg)
{
	struct msg create = {.type = MSG_REGION_CREATE}, answer;
	uint64_t number, epoch = 0;
	int fd = -1;

	(void)arg;
	SUPPORT_OK(support_session("alpha", 1 << 20, &fd));
	create.u.region_create = (struct msg_region_create){.bytes = 4 << 20,
		.page_bytes = 4096,
		.data = 1,
		.lanes = 1,
		.on_loss = MSG_ON_LOSS_SIGBUS};
	SUPPORT_OK(support_ask(fd, &create, MSG_REGION_CREATED, &answer, NULL));
	number = answer.u.region_created.region;
	SUPPORT_CHECK(answer.u.region_created.epoch == 1);
	SUPPORT_CHECK(ask_rotate(fd, number + 1, 1, &epoch) == SECPOOL_E_NOT_FOUND);
	SUPPORT_CHECK(ask_rotate(fd, number, 2, &epoch) == SECPOOL_E_INVALID);
	SUPPORT_CHECK(tell_rotated(fd, number, 2) == SECPOOL_E_INVALID);
	SUPPORT_OK(ask_rotate(fd, number, 1, &epoch));
	SUPPORT_CHECK(epoch == 2 && row_of(number).rotation == MSG_ROTATION_RUNNING);
	load_read_store(2, store);
	SUPPORT_CHECK(load_count_in_state(store[1]) == 1);
	SUPPORT_CHECK(ask_rotate(fd, number, 2, &epoch) == SECPOOL_E_BUSY);
	/* who says again that it has the first key has not taken the second: that one is destroyed */
	SUPPORT_OK(ask_rotate(fd, number, 1, &epoch));
	SUPPORT_CHECK(epoch == 3 && load_count_in_state(store[1]) == 0);
	SUPPORT_CHECK(tell_rotated(fd, number, 2) == SECPOOL_E_INVALID);
	SUPPORT_CHECK(load_count_in_state(store[0]) == 1);
	SUPPORT_OK(tell_rotated(fd, number, 3));
	SUPPORT_CHECK(load_count_in_state(store[0]) == 0);
	SUPPORT_CHECK(row_of(number).epoch == 3 && row_of(number).rotation == MSG_ROTATION_NONE);
	/* told again, as when the answer was lost */
	SUPPORT_OK(tell_rotated(fd, number, 3));
	SUPPORT_CHECK(tell_rotated(fd, number, 4) == SECPOOL_E_INVALID);
	close(fd);
	return 0;
}

static void run(const char *what, int (*part)(void *arg), uintptr_t arg)
{
	uint64_t began = clock_now_ns();

	if (support_join(support_fork(part, (void *)arg), 90000) != 0)
		support_fail("%s failed", what);
	printf("%s: %.1f s\n", what, (double)(clock_now_ns() - began) / (double)CLOCK_NS_PER_S);
	fflush(stdout);
}

static void test_refusals(void)
{
	char text[512] = "";

	SUPPORT_CHECK(support_cli(text, sizeof text, "tenant", "rotate", "nobody", NULL) == 3);
	if (!strstr(text, "no tenant 'nobody'"))
		support_fail("an unknown tenant: %s", text);
	SUPPORT_CHECK(support_cli(NULL, 0, "tenant", "rotate", NULL) == 2);
	SUPPORT_CHECK(support_cli(NULL, 0, "tenant", "rotate", "beta", NULL) == 0);
}

static void with_policy(const char *what, const char *lines, unsigned session_seconds,
	int (*part)(void *arg), uintptr_t arg)
{
	support_policy_lines = lines;
	support_up(3, "64M", support_policy(session_seconds));
	run(what, part, arg);
	support_down();
}

int main(void)
{
	support_up(7, "64M", NULL);
	test_refusals();
	run("on the wire", on_the_wire, 0);
	run("no redundancy", goes_on, 0);
	run("mirror:2", goes_on, 1);
	run("ec:4+2", goes_on, 2);
	run("ec:4+2, inline", goes_on_inline, 2);
	run("many regions", many_regions, 0);
	run("old ciphertext", old_is_refused, 0);
	run("mirror:2, keymgrd killed", keymgrd_dies, 1);
	run("ec:4+2, keymgrd killed", keymgrd_dies, 2);
	test_client_dies();
	run("mirror:2, pulled in the middle", pulled_in_the_middle, 1);
	run("ec:4+2, pulled in the middle", pulled_in_the_middle, 2);
	run("mirror:2, after a pull", rotates_after_a_pull, 1);
	support_down();
	with_policy("by what was written", "rotate_after_bytes: 64M\n", 0, rotates_by_itself, 3);
	with_policy("by age", "rotate_after_seconds: 1\n", 0, rotates_by_itself, 3);
	with_policy("in an old session", NULL, 2, session_is_renewed, 0);
	return 0;
}
