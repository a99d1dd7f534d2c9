/* SPDX-License-Identifier: Apache-2.0 */
/*
 * lib/device.c and lib/prober.c without daemons: a device on a memfd, whose control page this program writes. The back end is wrapped, so that the test sees which thread
 * touches the device.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/base/clock.h"
#include "lib/base/emumedia.h"
#include "lib/base/media.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/os.h"
#include "lib/prober.h"
#include "lib/service.h"

enum { CAPACITY = 4 << 20, SUSPECT_MS = 20, GONE_MS = 400, WAIT_MS = 10000 };
#define CANARY 0x0102030405060708ull

static int media;
static struct service service;
static struct secpool pool;
static struct device *device;
static pthread_t tester;
static _Atomic unsigned own_touches; /* of the back end, by this thread */

enum secpool_error __real_device_backend_read(
	struct device *from, uint64_t offset, void *to, size_t bytes);
enum secpool_error __real_device_backend_write(
	struct device *to, uint64_t offset, const void *from, size_t bytes);
bool __real_device_backend_alive(struct device *which);
enum secpool_error __wrap_device_backend_read(
	struct device *from, uint64_t offset, void *to, size_t bytes);
enum secpool_error __wrap_device_backend_write(
	struct device *to, uint64_t offset, const void *from, size_t bytes);
bool __wrap_device_backend_alive(struct device *which);

static void note(void)
{
	if (pthread_equal(pthread_self(), tester))
		atomic_fetch_add(&own_touches, 1);
}

enum secpool_error __wrap_device_backend_read(
	struct device *from, uint64_t offset, void *to, size_t bytes)
{
	note();
	return __real_device_backend_read(from, offset, to, bytes);
}

enum secpool_error __wrap_device_backend_write(
	struct device *to, uint64_t offset, const void *from, size_t bytes)
{
	note();
	return __real_device_backend_write(to, offset, from, bytes);
}

bool __wrap_device_backend_alive(struct device *which)
{
	note();
	return __real_device_backend_alive(which);
}

static void put(size_t at, uint64_t value)
{
	assert_int_equal(pwrite(media, &value, sizeof value, (off_t)(CAPACITY + at)), 8);
}

static void behave(enum emumedia_behaviour behaviour, uint64_t ms)
{
	put(EMUMEDIA_WORD_AT, emumedia_word(behaviour, ms * CLOCK_NS_PER_MS));
}

static enum secpool_error map_it(struct device **ret_device)
{
	struct msg_device info = {.slot = 3, .media = 9, .bytes = CAPACITY, .id = "dev0"};

	return device_map(&info, media, ret_device);
}

static int set_up(void **state)
{
	(void)state;
	memset(&service, 0, sizeof service);
	memset(&pool, 0, sizeof pool);
	tester = pthread_self();
	media = memfd_create("media", MFD_CLOEXEC);
	service.wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	service.pool = &pool;
	pool.service = &service;
	return media < 0 || ftruncate(media, (off_t)media_bytes(true, CAPACITY)) != 0;
}

/* A pool with the device; here and not in set_up, as cmocka takes SIGBUS for each test. */
static void begin(void)
{
	assert_int_equal(guarded_copy_install(), SECPOOL_OK);
	put(MEDIA_CANARY_AT, CANARY);
	assert_int_equal(map_it(&device), SECPOOL_OK);
	assert_int_equal(prober_start(&pool, SUSPECT_MS, GONE_MS, &service.prober), SECPOOL_OK);
	assert_int_equal(prober_watch(service.prober, device), SECPOOL_OK);
	atomic_store(&pool.devices, device);
	atomic_store(&own_touches, 0);
}

static int tear_down(void **state)
{
	(void)state;
	prober_stop(service.prober);
	device_drop(device);
	device = NULL;
	close(service.wake_fd);
	return close(media);
}

/* Media that were cut must not be touched any more when cmocka takes SIGBUS back. */
static void end(void)
{
	prober_stop(service.prober);
	service.prober = NULL;
}

static void await(_Atomic bool *flag, bool value)
{
	for (unsigned ms = 0; atomic_load(flag) != value; ms++) {
		assert_true(ms < WAIT_MS);
		clock_sleep_ns(CLOCK_NS_PER_MS);
	}
}

static void test_mapping_needs_a_canary(void **state)
{
	static const uint64_t none[] = {0, UINT64_MAX};
	struct device *mapped = NULL;

	(void)state;
	begin();
	for (size_t i = 0; i < 2; i++) {
		put(MEDIA_CANARY_AT, none[i]);
		assert_int_equal(map_it(&mapped), SECPOOL_E_DEVICE_GONE);
	}
	put(MEDIA_CANARY_AT, CANARY);
	behave(EMUMEDIA_SILENT, 0);
	assert_int_equal(map_it(&mapped), SECPOOL_E_DEVICE_GONE);
	behave(EMUMEDIA_NORMAL, 0);
	assert_int_equal(ftruncate(media, CAPACITY), 0);
	assert_int_equal(map_it(&mapped), SECPOOL_E_DEVICE_GONE);
	assert_null(mapped);
	end();
}

static void test_well(void **state)
{
	char out[] = "something", in[sizeof out];

	(void)state;
	begin();
	clock_sleep_ns(10ull * SUSPECT_MS * CLOCK_NS_PER_MS);
	assert_true(device_usable(device));
	assert_false(device_doubtful(device));
	assert_int_equal(device_write(device, 4096, out, sizeof out), SECPOOL_OK);
	assert_int_equal(device_read(device, 4096, in, sizeof in), SECPOOL_OK);
	assert_memory_equal(in, out, sizeof in);
	assert_true(device_seen_alive(device));
	assert_int_equal(own_touches, 3); /* by the thread itself: no other is in the way */
	assert_false(service.look);
}

/* Late, but not too late: the I/O thread alone touches it, and it works; when it answers in time again it is trusted again. */
static void test_slow(void **state)
{
	char out[] = "something", in[sizeof out];

	(void)state;
	begin();
	behave(EMUMEDIA_SLOW, 3 * SUSPECT_MS);
	await(&device->suspect, true);
	assert_true(device_doubtful(device));
	assert_int_equal(device_write(device, 8192, out, sizeof out), SECPOOL_OK);
	assert_int_equal(device_read(device, 8192, in, sizeof in), SECPOOL_OK);
	assert_memory_equal(in, out, sizeof in);
	assert_true(device_seen_alive(device));
	assert_int_equal(own_touches, 0);
	behave(EMUMEDIA_NORMAL, 0);
	await(&device->suspect, false);
	assert_true(device_usable(device));
	assert_int_equal(device_read(device, 8192, in, sizeof in), SECPOOL_OK);
	assert_int_equal(own_touches, 1);
}

static void test_stuck(void **state)
{
	char in[16] = "as it was";
	uint64_t began;

	(void)state;
	begin();
	behave(EMUMEDIA_STUCK, 0);
	await(&device->suspect, true);
	began = clock_now_ns();
	assert_int_equal(device_read(device, 0, in, sizeof in), SECPOOL_E_DEVICE_GONE);
	assert_true(clock_now_ns() - began < 10ull * GONE_MS * CLOCK_NS_PER_MS);
	assert_string_equal(in, "as it was");
	assert_false(device_usable(device));
	assert_int_equal(device->cause, MSG_CAUSE_STUCK);
	assert_int_equal(own_touches, 0);
	await(&service.look, true);
	began = clock_now_ns();
	assert_int_equal(device_write(device, 0, in, sizeof in), SECPOOL_E_DEVICE_GONE);
	assert_false(device_seen_alive(device));
	assert_true(clock_now_ns() - began < 10ull * CLOCK_NS_PER_MS); /* no more waits */
}

/* Given up, and never replaced: when it answers in time again, it can be used again; not before, and not if it is slow. */
static void test_back(void **state)
{
	char out[] = "something", in[sizeof out];
	struct device *again = NULL;

	(void)state;
	begin();
	behave(EMUMEDIA_STUCK, 0);
	await(&device->gone, true);
	atomic_store(&device->unreplaced, true);
	behave(EMUMEDIA_SLOW, 3 * SUSPECT_MS);
	clock_sleep_ns(60ull * SUSPECT_MS * CLOCK_NS_PER_MS);
	assert_false(device->back);
	atomic_store(&service.look, false);
	behave(EMUMEDIA_NORMAL, 0);
	await(&device->back, true);
	await(&service.look, true);
	assert_false(device_usable(device)); /* this incarnation stays gone */
	assert_int_equal(device_again(device, &again), SECPOOL_OK);
	assert_int_equal(again->slot, 3);
	assert_int_equal(again->media, 9);
	assert_string_equal(again->id, "dev0");
	assert_int_equal(device_write(again, CAPACITY - sizeof out, out, sizeof out), SECPOOL_OK);
	assert_int_equal(pread(media, in, sizeof in, (off_t)(CAPACITY - sizeof in)), sizeof in);
	assert_memory_equal(in, out, sizeof in);
	device_drop(again);
	assert_true(device_seen_alive(device) == false);
}

/* More of them than the I/O thread has places, all in it when the device is given up. */
static void *read_one(void *arg)
{
	uint8_t in[4096];

	(void)arg;
	return (void *)(uintptr_t)device_read(device, 0, in, sizeof in);
}

static void test_many_wait(void **state)
{
	enum { READERS = 12 };
	pthread_t readers[READERS];
	void *result;

	(void)state;
	begin();
	behave(EMUMEDIA_STUCK, 0);
	await(&device->suspect, true);
	for (unsigned i = 0; i < READERS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, read_one, NULL), 0);
	for (unsigned i = 0; i < READERS; i++) {
		assert_int_equal(pthread_join(readers[i], &result), 0);
		assert_int_equal((enum secpool_error)(uintptr_t)result, SECPOOL_E_DEVICE_GONE);
	}
}

/* Nobody asks, and it is found. */
static void test_silent(void **state)
{
	(void)state;
	begin();
	behave(EMUMEDIA_SILENT, 0);
	await(&device->gone, true);
	assert_int_equal(device->cause, MSG_CAUSE_SILENT);
	await(&service.look, true);
	assert_int_equal(own_touches, 0);
}

/* What a silent device does, and that a look tells it: in this thread, before the prober looks. */
static void test_silent_accesses(void **state)
{
	char out[] = "something", in[sizeof out];
	static const char zeros[sizeof out];
	struct device *other = NULL;

	(void)state;
	begin();
	assert_int_equal(map_it(&other), SECPOOL_OK); /* nobody watches this one */
	assert_int_equal(device_write(other, 0, out, sizeof out), SECPOOL_OK);
	behave(EMUMEDIA_SILENT, 0);
	assert_int_equal(device_write(other, 0, "overwrite", sizeof out), SECPOOL_OK);
	assert_int_equal(device_read(other, 0, in, sizeof in), SECPOOL_OK);
	assert_memory_equal(in, zeros, sizeof in);
	assert_false(device_seen_alive(other));
	assert_int_equal(other->cause, MSG_CAUSE_SILENT);
	assert_int_equal(device_read(other, 0, in, sizeof in), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(pread(media, in, sizeof in, 0), sizeof in);
	assert_memory_equal(in, out, sizeof in); /* the store was swallowed */
	device_drop(other);
}

static void test_cut(void **state)
{
	char in[16];

	(void)state;
	begin();
	assert_int_equal(ftruncate(media, 0), 0);
	assert_int_equal(device_read(device, 0, in, sizeof in), SECPOOL_E_DEVICE_GONE);
	assert_int_equal(device->cause, MSG_CAUSE_FAULT);
	device_give_up(device, MSG_CAUSE_REMOVED);
	assert_int_equal(device->cause, MSG_CAUSE_FAULT); /* the first one stays */
	assert_false(device_seen_alive(device));
	assert_false(device_seen_alive(NULL));
	end();
}

static void test_bounds(void **state)
{
	struct prober *prober = NULL;

	(void)state;
	begin();
	assert_int_equal(prober_start(&pool, 0, 5, &prober), SECPOOL_E_PROTOCOL);
	assert_int_equal(prober_start(&pool, 5, 5, &prober), SECPOOL_E_PROTOCOL);
	assert_null(prober);
	prober_stop(NULL);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_mapping_needs_a_canary),
		TEST(test_well),
		TEST(test_slow),
		TEST(test_stuck),
		TEST(test_back),
		TEST(test_many_wait),
		TEST(test_silent),
		TEST(test_silent_accesses),
		TEST(test_cut),
		TEST(test_bounds),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
