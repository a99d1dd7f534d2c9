/* SPDX-License-Identifier: Apache-2.0 */
/* Which devices are retired, and what becomes of one; the topology and the card's command are played. The real ones: tests/vm (leg newer). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "hotplug/device.h"
#include "hotplug/mark.h"
#include "hotplug/sanitise.h"
#include "hotplug/topology.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"

static struct hotplug hotplug;
static struct device device;
static struct topology_device cards[2];
static size_t card_count;
static enum msg_sanitise looks[8]; /* what is seen, one after the other; the last one for ever */
static unsigned look_next;
static enum secpool_error begin_error;
static char begun[64]; /* "MEMDEV REGION" */

enum secpool_error __wrap_topology_read(struct topology_device *list, size_t *ret_count);
enum secpool_error __wrap_topology_read(struct topology_device *list, size_t *ret_count)
{
	memcpy(list, cards, card_count * sizeof *cards);
	*ret_count = card_count;
	return SECPOOL_OK;
}

enum msg_sanitise __wrap_sanitise_look(const char *bus, const char *memdev);
enum msg_sanitise __wrap_sanitise_look(const char *bus, const char *memdev)
{
	enum msg_sanitise now = looks[look_next];

	assert_string_equal(bus, SANITISE_BUS);
	assert_true(strncmp(memdev, "mem", 3) == 0);
	look_next += look_next + 1 < sizeof looks / sizeof *looks &&
		     looks[look_next + 1] != MSG_SANITISE_NONE;
	return now;
}

enum secpool_error __wrap_sanitise_begin(const char *bus, const char *memdev, const char *region);
enum secpool_error __wrap_sanitise_begin(const char *bus, const char *memdev, const char *region)
{
	(void)bus;
	snprintf(begun, sizeof begun, "%s %s", memdev, region);
	return begin_error ? err_set(begin_error, "played: the card refused") : SECPOOL_OK;
}

static int set_up(void **state)
{
	uint64_t mark;

	(void)state;
	memset(&device, 0, sizeof device);
	memset(cards, 0, sizeof cards);
	memset(looks, 0, sizeof looks);
	look_next = 0;
	begin_error = SECPOOL_OK;
	begun[0] = '\0';
	device.hotplug = &hotplug;
	device.media_fd = -1;
	device.state = MSG_DEVICE_OFFLINE;
	device.identity.kind = MSG_KIND_CXL;
	strcpy(device.identity.id, "cxl-77");
	strcpy(device.folder, "/tmp/secpool-retire-XXXXXX");
	device.topology = calloc(1, sizeof *device.topology);
	if (!device.topology || !mkdtemp(device.folder) ||
		mark_renew(device.folder, &mark) != SECPOOL_OK || sd_event_new(&hotplug.loop) < 0)
		return -1;
	device.topology->serial = 0x77;
	strcpy(device.topology->memdev, "mem0");
	strcpy(device.topology->region, "region0");
	/* since it was read the card came back under another name, and another has its */
	cards[0] = (struct topology_device){.serial = 0x78, .memdev = "mem0", .region = "region0"};
	cards[1] = (struct topology_device){.serial = 0x77, .memdev = "mem1", .region = "region1"};
	card_count = 2;
	looks[0] = MSG_SANITISE_POSSIBLE;
	return work_new(hotplug.loop, 1, &hotplug.copy_work) == SECPOOL_OK ? 0 : -1;
}

static int tear_down(void **state)
{
	(void)state;
	work_free(hotplug.copy_work);
	device_retire_done(&device);
	sd_event_unref(hotplug.loop);
	free(device.topology);
	return os_remove_tree(device.folder) == SECPOOL_OK ? 0 : -1;
}

static void turn_until_ended(void)
{
	uint64_t end = clock_now_ns() + 60 * CLOCK_NS_PER_S;

	while (device.retire.state == MSG_SANITISE_RUNNING) {
		assert_true(clock_now_ns() < end);
		assert_true(sd_event_run(hotplug.loop, 10000) >= 0);
	}
}

static void drained_card_sanitises_itself(void **state)
{
	(void)state;
	looks[1] = looks[2] = MSG_SANITISE_RUNNING;
	looks[3] = MSG_SANITISE_POSSIBLE;
	assert_int_equal(device_retire(&device), SECPOOL_OK);
	assert_int_equal(device.retire.state, MSG_SANITISE_RUNNING);
	assert_int_equal(device_attest(&device), SECPOOL_E_BUSY);
	assert_non_null(strstr(err_detail(), "sanitised"));
	turn_until_ended();
	assert_string_equal(begun, "mem1 region1");
	assert_int_equal(device.retire.state, MSG_SANITISE_DONE);
	assert_non_null(strstr(device.reason, "may be taken out"));
	assert_int_equal(mark_read(device.folder), 0);
	assert_int_equal(device.state, MSG_DEVICE_OFFLINE);
	device_retire_done(&device); /* it is used again */
	assert_int_equal(device.retire.state, MSG_SANITISE_NONE);
	assert_string_equal(device.retire.text, "");
}

static void only_what_holds_nothing(void **state)
{
	(void)state;
	for (unsigned s = 0; s < MSG_DEVICE_STATES; s++)
		for (int there = 0; there < 2; there++) {
			bool good = s == MSG_DEVICE_OFFLINE ||
				    ((s == MSG_DEVICE_ABSENT || s == MSG_DEVICE_LOST) && !there);

			device.state = (enum msg_state)s;
			device.media_fd = there ? 0 : -1;
			begin_error = SECPOOL_E_SYSTEM; /* so that it is as it was */
			assert_int_equal(
				device_retire(&device), good ? SECPOOL_OK : SECPOOL_E_BUSY);
			if (good)
				assert_int_equal(device_retire(&device), SECPOOL_E_BUSY);
			else
				assert_non_null(
					strstr(err_detail(), "'secpool device drain cxl-77'"));
			turn_until_ended();
			device_retire_done(&device);
		}
	assert_true(mark_read(device.folder) != 0);
}

static void what_can_not_be(void **state)
{
	struct topology_device *topology = device.topology;

	(void)state;
	device.topology = NULL;
	assert_int_equal(device_retire(&device), SECPOOL_E_DEVICE_GONE);
	device.topology = topology;
	device.state = MSG_DEVICE_ONLINE; /* said before an operator drains for it */
	looks[0] = MSG_SANITISE_NONE;
	assert_int_equal(device_retire(&device), SECPOOL_E_UNSUPPORTED);
	assert_non_null(strstr(err_detail(), "Linux 6.6"));
	device.identity.kind = MSG_KIND_EMULATED;
	assert_int_equal(device_retire(&device), SECPOOL_E_UNSUPPORTED);
	assert_non_null(strstr(err_detail(), "emulated"));
	assert_string_equal(begun, "");
	assert_int_equal(device.retire.state, MSG_SANITISE_NONE);
}

static void what_goes_wrong_is_said(void **state)
{
	(void)state;
	begin_error = SECPOOL_E_BUSY;
	assert_int_equal(device_retire(&device), SECPOOL_OK);
	turn_until_ended();
	assert_int_equal(device.retire.state, MSG_SANITISE_FAILED);
	assert_string_equal(device.reason, "it could not be sanitised: played: the card refused");
	assert_true(mark_read(device.folder) != 0);
	/* again: one that goes meanwhile */
	begin_error = SECPOOL_OK;
	looks[1] = MSG_SANITISE_RUNNING;
	assert_int_equal(device_retire(&device), SECPOOL_OK);
	looks[1] = MSG_SANITISE_NONE;
	looks[0] = MSG_SANITISE_NONE;
	look_next = 0;
	turn_until_ended();
	assert_int_equal(device.retire.state, MSG_SANITISE_FAILED);
	/* gone before it began, and two of one serial: neither is touched */
	looks[0] = MSG_SANITISE_POSSIBLE;
	begun[0] = '\0';
	for (card_count = 0; card_count <= 2; card_count += 2) {
		cards[0].serial = 0x77;
		assert_int_equal(device_retire(&device), SECPOOL_OK);
		turn_until_ended();
		assert_int_equal(device.retire.state, MSG_SANITISE_FAILED);
		assert_string_equal(begun, "");
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(drained_card_sanitises_itself),
		TEST(only_what_holds_nothing),
		TEST(what_can_not_be),
		TEST(what_goes_wrong_is_said),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
