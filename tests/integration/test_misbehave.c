/* SPDX-License-Identifier: Apache-2.0 */
/* A real secpool-hotplugd whose devices misbehave by command; this program plays keymgrd and the
 * command (hotplug_play.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "hotplug/holdoff.h"
#include "lib/base/emumedia.h"
#include "lib/base/guarded_copy.h"
#include "tests/integration/hotplug_play.h"

static int tear_down(void **state)
{
	(void)state;
	play_end();
	return 0;
}

static uint64_t word_of(const struct play_device *device)
{
	uint64_t word = 99;

	PLAY_CHECK(pread(device->media_fd, &word, sizeof word,
			   PLAY_CAPACITY_BYTES + EMUMEDIA_WORD_AT) == sizeof word);
	return word;
}

static enum secpool_error inject(const char *id, const char *text)
{
	struct msg msg = {.type = MSG_DEVICE_COMMAND, .u.device_command.verb = MSG_VERB_INJECT};

	MSG_SET(msg.u.device_command.id, id);
	MSG_SET(msg.u.device_command.argument, text);
	return play_ask(&msg);
}

static enum secpool_error pull_silently(const char *id, uint32_t ms)
{
	struct msg msg = {.type = MSG_DEVICE_COMMAND,
		.u.device_command = {.verb = MSG_VERB_PULL, .silent_ms = ms}};

	MSG_SET(msg.u.device_command.id, id);
	return play_ask(&msg);
}

/* What keymgrd says of its policy. */
static void limit_faults(uint32_t faults)
{
	struct msg msg = {.type = MSG_DEVICE_LIMITS,
		.u.device_limits = {.suspect_tenants = 2, .suspect_faults = faults}};

	play_send(play.keymgr, &msg);
}

/* keymgrd asks to look: a device that is well stays online, whoever complains how often. */
static void check(const char *id, uint32_t cause, unsigned times)
{
	struct msg msg = {.type = MSG_DEVICE_CHECK,
		.u.device_check = {.cause = cause, .tenants = 1, .answer_ms = 20}};

	MSG_SET(msg.u.device_check.id, id);
	for (unsigned i = 0; i < times; i++)
		play_send(play.keymgr, &msg);
}

/* Zeros and swallowed stores first, nobody told; then as any pull. */
static void silent_pull(void **state)
{
	struct play_device *device;
	uint64_t began, mark;
	uint8_t byte;
	void *map;

	(void)state;
	PLAY_OK(guarded_copy_install()); /* here: cmocka sets its own handlers for each test */
	play_begin(1);
	device = play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	mark = device->mark;
	map = mmap(
		NULL, PLAY_CAPACITY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, device->media_fd, 0);
	PLAY_CHECK(map != MAP_FAILED);
	play_connect();
	began = clock_now_ns();
	PLAY_OK(pull_silently("dev0", 200));
	PLAY_CHECK(clock_now_ns() - began >= 200ull * CLOCK_NS_PER_MS);
	PLAY_CHECK(guarded_copy(&byte, map, 1) == SECPOOL_E_DEVICE_GONE);
	play_wait("dev0", MSG_DEVICE_LOST, 1);
	PLAY_OK(play_command("dev0", MSG_VERB_PLUG));
	play_wait("dev0", MSG_DEVICE_ONLINE, 2);
	PLAY_CHECK(device->mark != mark && word_of(device) == EMUMEDIA_NORMAL);
	munmap(map, PLAY_CAPACITY_BYTES);
}

static void silence_is_found_by_a_look(void **state)
{
	struct play_device *device;
	struct msg msg = {.type = MSG_DEVICE_COMMAND,
		.number = 5000,
		.u.device_command = {.id = "dev0", .verb = MSG_VERB_PULL, .silent_ms = 1500}};

	(void)state;
	play_begin(1);
	device = play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	play_connect();
	play_send(play.command, &msg); /* answered when it is over */
	play_until(play_never, NULL, 100);
	PLAY_CHECK(device->state == MSG_DEVICE_ONLINE && word_of(device) == EMUMEDIA_SILENT);
	check("dev0", MSG_CAUSE_SILENT, 1);
	play_wait("dev0", MSG_DEVICE_SUSPECT, 1);
	play_wait("dev0", MSG_DEVICE_LOST, 1);
}

static void behaviours(void **state)
{
	struct play_device *device;

	(void)state;
	play_begin(1);
	device = play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	play_connect();
	check("dev0", MSG_CAUSE_STUCK, 50);
	check("dev0", MSG_CAUSE_SILENT, 50);
	play_until(play_never, NULL, 300);
	PLAY_CHECK(device->state == MSG_DEVICE_ONLINE);
	PLAY_OK(inject("dev0", "slow:3"));
	PLAY_CHECK(word_of(device) == emumedia_word(EMUMEDIA_SLOW, 3 * CLOCK_NS_PER_MS));
	check("dev0", MSG_CAUSE_STUCK, 3); /* slow, but within what keymgrd says */
	play_until(play_never, NULL, 200);
	PLAY_CHECK(device->state == MSG_DEVICE_ONLINE);
	PLAY_OK(inject("dev0", "stuck"));
	PLAY_CHECK(word_of(device) == EMUMEDIA_STUCK);
	check("dev0", MSG_CAUSE_STUCK, 1);
	play_wait("dev0", MSG_DEVICE_SUSPECT, 1);
	PLAY_OK(inject("dev0", "normal"));
	PLAY_CHECK(word_of(device) == EMUMEDIA_NORMAL);
	PLAY_OK(play_command("dev0", MSG_VERB_ATTEST)); /* an operator brings it back */
	play_wait("dev0", MSG_DEVICE_ONLINE, 2);
}

static void short_media_are_gone(void **state)
{
	(void)state;
	play_begin(1);
	play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	play_connect();
	PLAY_OK(inject("dev0", "short"));
	play_wait("dev0", MSG_DEVICE_LOST, 1);
	PLAY_CHECK(inject("dev0", "stuck") == SECPOOL_E_BUSY);
	PLAY_CHECK(inject("dev0", "slow") == SECPOOL_E_INVALID);
	PLAY_OK(play_command("dev0", MSG_VERB_PLUG));
	play_wait("dev0", MSG_DEVICE_ONLINE, 2);
}

static bool has_row(const void *arg)
{
	return play.rows > *(const unsigned *)arg;
}

/* What `secpool device list` has of the one device. */
static struct msg_device_row row_of_dev0(void)
{
	struct msg msg = {.type = MSG_LIST, .number = 77, .u.list.what = MSG_LIST_DEVICES};
	unsigned before = play.rows, answers = play.answers;
	struct msg_device_row row;

	play_send(play.command, &msg);
	PLAY_CHECK(play_until(has_row, &before, PLAY_WAIT_MS));
	row = play.answer.u.device_row;
	while (play.answers == answers)
		play_until(play_never, NULL, 10);
	return row;
}

/* It is back, and waits. */
static void is_held_off(const struct play_device *device, unsigned returns, unsigned seconds)
{
	struct msg_device_row row;

	play_wait("dev0", MSG_DEVICE_DISCOVERED, 1);
	PLAY_CHECK(strncmp(device->cause, "held off", 8) == 0);
	row = row_of_dev0();
	PLAY_CHECK(row.returns == returns && row.held_s <= seconds);
	PLAY_CHECK(row.state != MSG_DEVICE_DISCOVERED || row.held_s > 0);
}

/* A daemon that is started anew counts on, and a wait that began goes on. */
static void flapping_is_remembered(void **state)
{
	struct play_device *device;

	(void)state;
	play_begin(1);
	device = play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	for (unsigned i = 1; i <= HOLDOFF_FREE + 2; i++) {
		play_connect();
		PLAY_OK(inject("dev0", "flap:1"));
		play_wait("dev0", MSG_DEVICE_LOST, i);
		if (i <= HOLDOFF_FREE) {
			play_wait("dev0", MSG_DEVICE_ONLINE, i + 1);
			continue;
		}
		play_wait("dev0", MSG_DEVICE_DISCOVERED, i);
		kill(play.pid, SIGKILL);
		play_wait_pid(play.pid);
		play_start_daemon();
		play_wait("dev0", MSG_DEVICE_ONLINE, i + 1);
		play_connect();
		PLAY_CHECK(row_of_dev0().returns == i);
	}
	PLAY_OK(play_command("dev0", MSG_VERB_ATTEST));
	PLAY_CHECK(row_of_dev0().returns == 0 && device->state == MSG_DEVICE_ONLINE);
	kill(play.pid, SIGKILL);
	play_wait_pid(play.pid);
	play_start_daemon();
	play_wait("dev0", MSG_DEVICE_ONLINE, HOLDOFF_FREE + 4);
	play_connect();
	PLAY_CHECK(row_of_dev0().returns == 0);
}

static void flapping(void **state)
{
	struct play_device *device;
	uint64_t mark, began;

	(void)state;
	play_begin(1);
	device = play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	mark = device->mark;
	play_connect();
	PLAY_OK(inject("dev0", "flap:3"));
	PLAY_CHECK(inject("dev0", "flap:3") == SECPOOL_E_BUSY); /* flapping, or out */
	play_wait("dev0", MSG_DEVICE_LOST, 1);
	/* between two pulls it need not come as far as online; in the end it does, and stays */
	for (unsigned i = 0; i < 100 && inject("dev0", "flap:1") != SECPOOL_OK; i++)
		play_until(play_never, NULL, 100);
	play_wait("dev0", MSG_DEVICE_LOST, 1);
	is_held_off(device, HOLDOFF_FREE + 1, 1);
	began = clock_now_ns();
	play_wait("dev0", MSG_DEVICE_ONLINE, 2);
	PLAY_CHECK(clock_now_ns() - began > HOLDOFF_LEAST_NS / 2);
	play_until(play_never, NULL, 500);
	PLAY_CHECK(device->state == MSG_DEVICE_ONLINE && device->mark != mark);
	/* again, for longer; who asks has it at once, and it begins anew */
	PLAY_OK(inject("dev0", "flap:1"));
	play_wait("dev0", MSG_DEVICE_LOST, 2);
	is_held_off(device, HOLDOFF_FREE + 2, 2);
	PLAY_OK(play_command("dev0", MSG_VERB_ATTEST));
	play_wait("dev0", MSG_DEVICE_ONLINE, 3);
	PLAY_CHECK(row_of_dev0().returns == 0 && row_of_dev0().held_s == 0);
	/* a plug by command is none of that */
	for (int i = 0; i <= HOLDOFF_FREE; i++) {
		PLAY_OK(play_command("dev0", MSG_VERB_PULL));
		PLAY_OK(play_command("dev0", MSG_VERB_PLUG));
	}
	PLAY_CHECK(row_of_dev0().returns == 0 && row_of_dev0().held_s == 0);
	/* one that was told to stop flapping does not come back by itself when it is pulled then */
	PLAY_OK(inject("dev0", "flap:4"));
	while (inject("dev0", "normal") != SECPOOL_OK)
		play_until(play_never, NULL, 10);
	PLAY_OK(play_command("dev0", MSG_VERB_PULL));
	play_until(play_never, NULL, 2500);
	PLAY_CHECK(row_of_dev0().state == MSG_DEVICE_LOST);
}

/* What was reported is counted; the policy's thresholds make a device suspect. */
static void reports_are_counted(void **state)
{
	(void)state;
	play_begin(1);
	play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	play_connect();
	check("dev0", MSG_CAUSE_TAG, 2);
	check("dev0", MSG_CAUSE_FAULT, 3);
	play_until(play_never, NULL, 200);
	PLAY_CHECK(row_of_dev0().tag_failures == 2 && row_of_dev0().faults == 3 &&
		   row_of_dev0().looks == 5 && row_of_dev0().state == MSG_DEVICE_ONLINE);
	limit_faults(5);
	check("dev0", MSG_CAUSE_FAULT, 1);
	play_until(play_never, NULL, 200);
	PLAY_CHECK(row_of_dev0().state == MSG_DEVICE_ONLINE);
	check("dev0", MSG_CAUSE_FAULT, 1);
	play_wait("dev0", MSG_DEVICE_SUSPECT, 1);
	PLAY_OK(play_command("dev0", MSG_VERB_ATTEST));
	PLAY_CHECK(row_of_dev0().looks == 0);
}

/* Good evidence says nothing of what it did: who was suspect is so after a restart, until an operator asks, or it is out. */
static void suspicion_survives_a_kill(void **state)
{
	(void)state;
	play_begin(1);
	play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	for (int round = 0; round < 2; round++) {
		unsigned online = play_device("dev0")->online_count;

		limit_faults(1);
		check("dev0", MSG_CAUSE_FAULT, 1);
		play_wait("dev0", MSG_DEVICE_SUSPECT, online);
		kill(play.pid, SIGKILL);
		play_wait_pid(play.pid);
		os_close(&play.command);
		play_start_daemon();
		play_wait("dev0", MSG_DEVICE_SUSPECT, online + 1);
		play_connect();
		if (round == 0) {
			PLAY_OK(play_command("dev0", MSG_VERB_ATTEST));
		} else {
			PLAY_OK(play_command("dev0", MSG_VERB_PULL));
			PLAY_OK(play_command("dev0", MSG_VERB_PLUG));
		}
		play_wait("dev0", MSG_DEVICE_ONLINE, online + 2);
		play_until(play_never, NULL, 200);
		PLAY_CHECK(play_device("dev0")->state == MSG_DEVICE_ONLINE);
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_teardown(f, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(silent_pull),
		TEST(silence_is_found_by_a_look),
		TEST(behaviours),
		TEST(short_media_are_gone),
		TEST(flapping),
		TEST(flapping_is_remembered),
		TEST(reports_are_counted),
		TEST(suspicion_survives_a_kill),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
