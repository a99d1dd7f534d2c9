/* SPDX-License-Identifier: Apache-2.0 */
/* Devices that come online again with something changed, with a thread that answers in the enclave's place. */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "keymgr/devclaims.h"
#include "keymgr/directory.h"
#include "keymgr/endings.h"
#include "keymgr/events.h"
#include "keymgr/regions.h"
#include "keymgr/releases.h"
#include "keymgr/server.h"
#include "lib/base/emumedia.h"
#include "lib/base/guarded_copy.h"
#include "lib/base/media.h"
#include "lib/base/clock.h"
#include "lib/wire/sock.h"
#include "policy/policy.h"

#define MIB (1ull << 20)

static struct {
	int sockets[2];
	pthread_t thread;
	_Atomic int not_fresh;
	_Atomic unsigned checks;
	_Atomic uint64_t expires_ns;
} enclave;
static struct daemon daemon_;
static int listener = -1;
static char folder[64], path[96], media[96], address[96];

static void *answer_all(void *arg)
{
	struct sock_extra extra;
	struct msg request;

	(void)arg;
	while (sock_receive(enclave.sockets[1], &request, &extra,
		       clock_now_ns() + 60 * CLOCK_NS_PER_S) == SECPOOL_OK) {
		struct msg answer = {.type = MSG_REPLY, .number = request.number};

		if (request.type == MSG_ENC_DEVICE_CHECK) {
			enclave.checks++;
			answer.type = MSG_ATTEST_VERDICT;
			answer.u.attest_verdict.error =
				enclave.not_fresh ? SECPOOL_E_NOT_ATTESTED : SECPOOL_OK;
			answer.u.attest_verdict.expires_ns = enclave.expires_ns;
		}
		if (request.type == MSG_ENC_RECEIPT) /* it is not looked at here */
			answer.u.reply.error = SECPOOL_E_BUSY;
		sock_close_fds(&extra);
		if (sock_send(enclave.sockets[1], &answer, NULL, 0,
			    clock_now_ns() + CLOCK_NS_PER_S) != SECPOOL_OK)
			break;
	}
	return NULL;
}

/* The front's part of an attestation that went well. */
static void attest(uint64_t bytes)
{
	struct devices_row *row = devices_find(daemon_.devices, "dev0");

	devclaims_made(daemon_.devices, "dev0", bytes);
	if (!row)
		assert_int_equal(devices_expect(daemon_.devices, "dev0", &row), SECPOOL_OK);
	devclaims_proved(daemon_.devices, row);
}

static enum secpool_error online(uint64_t mark, const char *domain)
{
	struct msg_device_state state = {.kind = MSG_KIND_EMULATED,
		.state = MSG_DEVICE_ONLINE,
		.bytes = 64 * MIB,
		.media = mark};
	FILE *file = fopen(media, "r+e");
	enum secpool_error error;
	int fd;

	assert_non_null(file);
	fd = dup(fileno(file));
	fclose(file);
	MSG_SET(state.id, "dev0");
	MSG_SET(state.domain, domain);
	error = devices_online(&daemon_, &state, &fd);
	assert_int_equal(fd, -1);
	return error;
}

static void new_file(const char *name)
{
	FILE *file = fopen(name, "we");

	assert_non_null(file);
	assert_int_equal(ftruncate(fileno(file), (off_t)media_bytes(true, 64 * MIB)), 0);
	fclose(file);
}

static void start_front(void)
{
	assert_int_equal(directory_open(path, &daemon_.directory), SECPOOL_OK);
	assert_int_equal(events_new(&daemon_, &daemon_.events), SECPOOL_OK);
	assert_int_equal(devices_new(&daemon_, &daemon_.devices), SECPOOL_OK);
}

static void stop_front(void)
{
	devices_free(daemon_.devices);
	events_free(daemon_.events);
	directory_close(daemon_.directory);
	daemon_.devices = NULL;
	daemon_.events = NULL;
	daemon_.directory = NULL;
}

static int set_up(void **state)
{
	(void)state;
	daemon_ = (struct daemon){.faultfd = -1};
	enclave.not_fresh = 0;
	enclave.checks = 0;
	enclave.expires_ns = 0;
	snprintf(folder, sizeof folder, "/tmp/secpool-devices-XXXXXX");
	if (!mkdtemp(folder) || sock_pair(enclave.sockets) != SECPOOL_OK ||
		sd_event_new(&daemon_.loop) < 0 ||
		pthread_create(&enclave.thread, NULL, answer_all, NULL) != 0)
		return -1;
	daemon_.enclave = enclave.sockets[0];
	snprintf(path, sizeof path, "%s/directory.db", folder);
	snprintf(media, sizeof media, "%s/media", folder);
	snprintf(address, sizeof address, "%s/s", folder);
	if (sock_listen(address, 0600, &listener) != SECPOOL_OK ||
		server_new(&daemon_, listener, &daemon_.server) != SECPOOL_OK)
		return -1;
	start_front();
	new_file(media);
	attest(64 * MIB);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	stop_front();
	server_free(daemon_.server);
	os_close(&listener);
	os_close(&enclave.sockets[0]);
	pthread_join(enclave.thread, NULL);
	os_close(&enclave.sockets[1]);
	sd_event_unref(daemon_.loop);
	return os_remove_tree(folder) == SECPOOL_OK ? 0 : -1;
}

/* Makes all its space free, then gives 8 MiB of it to a region. */
static uint64_t use_some(void)
{
	static const struct extents_device device = {1, "left", 0};
	struct regions_row row = {.bytes = 8 * MIB, .page_bytes = 4096, .data = 1, .lanes = 1};

	assert_int_equal(directory_run(daemon_.directory, "UPDATE extents SET state = 2",
				 DIRECTORY_VALUES()),
		SECPOOL_OK);
	MSG_SET(row.tenant, "t");
	assert_int_equal(
		regions_create(daemon_.directory, &row, 0x110000000000ull, 1ull << 40, &device, 1),
		SECPOOL_OK);
	return row.id;
}

static uint64_t bytes_of(uint64_t region, enum extents_state kind)
{
	uint64_t bytes = 0;

	assert_int_equal(directory_number(daemon_.directory,
				 "SELECT IFNULL(SUM(bytes), 0) FROM extents"
				 " WHERE IFNULL(region, 0) = ?1 AND state = ?2",
				 DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(kind)), &bytes),
		SECPOOL_OK);
	return bytes;
}

static void test_another_domain_keeps_all_places(void **state)
{
	struct devices_row *row = devices_find(daemon_.devices, "dev0");
	uint64_t region, count = 0;

	(void)state;
	assert_int_equal(online(7, "left"), SECPOOL_OK);
	assert_int_equal(bytes_of(0, EXTENTS_UNKNOWN), 64 * MIB);
	region = use_some();
	assert_int_equal(online(7, "right"), SECPOOL_OK);
	assert_string_equal(row->domain, "right");
	assert_int_equal(row->state, MSG_DEVICE_ONLINE);
	assert_int_equal(bytes_of(region, EXTENTS_IN_USE), 8 * MIB);
	assert_int_equal(bytes_of(0, EXTENTS_FREE), 56 * MIB);
	assert_int_equal(directory_number(daemon_.directory,
				 "SELECT COUNT(*) FROM devices WHERE domain = 'right'",
				 DIRECTORY_VALUES(), &count),
		SECPOOL_OK);
	assert_int_equal(count, 1);
}

/* A lost mark: the file is the one that a live client maps. */
static void test_a_new_mark_on_the_same_file_sets_aside(void **state)
{
	uint64_t region;

	(void)state;
	assert_int_equal(online(7, "left"), SECPOOL_OK);
	region = use_some();
	assert_int_equal(online(8, "left"), SECPOOL_OK);
	assert_int_equal(bytes_of(region, EXTENTS_SET_ASIDE), 8 * MIB);
	assert_int_equal(bytes_of(0, EXTENTS_UNKNOWN), 56 * MIB);
	/* the same after a restart, which knows the file from its directory */
	stop_front();
	start_front();
	attest(64 * MIB);
	assert_int_equal(online(9, "left"), SECPOOL_OK);
	assert_int_equal(bytes_of(region, EXTENTS_SET_ASIDE), 8 * MIB);
	assert_int_equal(bytes_of(0, EXTENTS_UNKNOWN), 56 * MIB);
}

static void replace_file(void)
{
	char other[112];

	snprintf(other, sizeof other, "%s.other", media);
	new_file(other);
	assert_int_equal(rename(other, media), 0);
}

static void test_another_file_loses_all_places(void **state)
{
	struct regions_row row;
	uint64_t region;

	(void)state;
	assert_int_equal(online(7, "left"), SECPOOL_OK);
	region = use_some();
	replace_file();
	assert_int_equal(online(8, "left"), SECPOOL_OK);
	assert_int_equal(bytes_of(0, EXTENTS_UNKNOWN), 64 * MIB);
	assert_int_equal(regions_find(daemon_.directory, region, &row), SECPOOL_OK);
	assert_int_equal(row.unreachable_bytes, 8 * MIB);
}

static void test_a_mark_beside_another_file_is_not_believed(void **state)
{
	uint64_t region;

	(void)state;
	assert_int_equal(online(7, "left"), SECPOOL_OK);
	region = use_some();
	stop_front();
	start_front();
	attest(64 * MIB);
	replace_file();
	assert_int_equal(online(7, "left"), SECPOOL_OK);
	assert_int_equal(bytes_of(region, EXTENTS_IN_USE), 0);
	assert_int_equal(bytes_of(0, EXTENTS_UNKNOWN), 64 * MIB);
}

static void test_after_a_boot_the_mark_decides(void **state)
{
	uint64_t region;

	(void)state;
	assert_int_equal(online(7, "left"), SECPOOL_OK);
	region = use_some();
	assert_int_equal(directory_run(daemon_.directory, "UPDATE devices SET boot = 'earlier'",
				 DIRECTORY_VALUES()),
		SECPOOL_OK);
	stop_front();
	start_front();
	attest(64 * MIB);
	replace_file();
	assert_int_equal(online(7, "left"), SECPOOL_OK);
	assert_int_equal(bytes_of(region, EXTENTS_IN_USE), 8 * MIB);
	/* from now on this boot's file is known */
	replace_file();
	assert_int_equal(online(7, "left"), SECPOOL_OK);
	assert_int_equal(bytes_of(region, EXTENTS_IN_USE), 0);
}

static void test_only_the_attested_size_comes_online(void **state)
{
	struct devices_row *row = devices_find(daemon_.devices, "dev0");

	(void)state;
	attest(32 * MIB);
	assert_int_equal(online(7, "left"), SECPOOL_E_NOT_ATTESTED);
	assert_non_null(strstr(err_detail(), "33554432 were attested"));
	assert_int_equal(row->slot, 0);
	attest(64 * MIB);
	enclave.not_fresh = 1;
	assert_int_equal(online(7, "left"), SECPOOL_E_NOT_ATTESTED);
	enclave.not_fresh = 0;
	assert_int_equal(online(7, "left"), SECPOOL_OK);
	assert_int_equal(online(7, "no word"), SECPOOL_E_PROTOCOL);
	/* a size whose beginning was forgotten is none */
	for (int i = 0; i < DEVICES_CLAIMS_MOST; i++) {
		char id[16];

		snprintf(id, sizeof id, "other%d", i);
		devclaims_made(daemon_.devices, id, 64 * MIB);
	}
	devclaims_proved(daemon_.devices, row);
	assert_int_equal(online(7, "left"), SECPOOL_E_NOT_ATTESTED);
}

static void remember(
	struct devices_row *row, const uint8_t *ek, const char *serial, uint64_t resets)
{
	struct msg_attest_verdict verdict = {.resets = resets};

	MSG_SET(verdict.serial, serial);
	memcpy(verdict.ek_name, ek, sizeof verdict.ek_name);
	assert_int_equal(devclaims_remember(&daemon_, row, &verdict), SECPOOL_OK);
}

static void test_a_copy_of_a_tpm_makes_the_other_suspect(void **state)
{
	static const uint8_t ek[DEVICES_EK_BYTES] = {1, 2, 3}, other[DEVICES_EK_BYTES] = {4};
	struct devices_row *row = devices_find(daemon_.devices, "dev0");
	uint64_t resets = 0;

	(void)state;
	assert_int_equal(online(7, "left"), SECPOOL_OK);
	remember(row, ek, "S", 9);
	/* only what is higher is stored, and only of this TPM */
	remember(row, ek, "T", 8);
	remember(row, other, "U", 99);
	assert_string_equal(row->serial, "T");
	assert_memory_equal(row->ek, ek, sizeof ek);
	assert_int_equal(
		directory_number(daemon_.directory, "SELECT resets FROM devices WHERE id = 'dev0'",
			DIRECTORY_VALUES(), &resets),
		SECPOOL_OK);
	assert_int_equal(resets, 9);
	devclaims_doubt(&daemon_, "dev1", ek); /* its verdict stands */
	assert_int_equal(row->state, MSG_DEVICE_ONLINE);
	enclave.not_fresh = 1;
	devclaims_doubt(&daemon_, "dev1", other);
	assert_int_equal(row->state, MSG_DEVICE_ONLINE);
	devclaims_doubt(&daemon_, "dev1", ek);
	assert_int_equal(row->state, MSG_DEVICE_SUSPECT);
	assert_int_equal(row->media_fd, -1);
}

static size_t count_usable(void)
{
	static struct extents_device list[DEVICES_MOST];
	size_t count = 99;

	assert_int_equal(devices_usable(&daemon_, list, &count), SECPOOL_OK);
	return count;
}

/* What the enclave said holds until the evidence's end, and not beyond anything that may have changed it. */
static void test_fresh_is_asked_once(void **state)
{
	static const char text[] =
		"version: 1\ntenants:\n  - name: a\n    users: [root]\n"
		"    quota: {bytes: 1G, regions: 1, sessions: 1, local_bytes: 1M}\n"
		"devices:\n  enrol: first-use\n  firmware: [f]\n";
	struct policy *policy = NULL;
	struct devices_row *row;

	(void)state;
	assert_int_equal(policy_load_text(text, sizeof text - 1, "test", &policy), SECPOOL_OK);
	daemon_.policy = policy;
	attest(64 * MIB);
	assert_int_equal(online(7, "d"), SECPOOL_OK);
	row = devices_find(daemon_.devices, "dev0");
	/* evidence that has ended is asked about each time */
	enclave.checks = 0;
	assert_int_equal(count_usable(), 1);
	assert_int_equal(count_usable(), 1);
	assert_int_equal(enclave.checks, 2);
	enclave.expires_ns = clock_now_ns() + 3600 * CLOCK_NS_PER_S;
	assert_int_equal(count_usable(), 1);
	assert_int_equal(count_usable(), 1);
	assert_int_equal(enclave.checks, 3);
	enclave.not_fresh = 1;
	devices_doubt(daemon_.devices);
	assert_int_equal(count_usable(), 0);
	assert_int_equal(count_usable(), 0);
	assert_int_equal(enclave.checks, 5);
	enclave.not_fresh = 0;
	assert_int_equal(count_usable(), 1);
	assert_int_equal(row->fresh_until_ns, enclave.expires_ns);
	/* its end */
	row->fresh_until_ns = clock_now_ns();
	enclave.not_fresh = 1;
	assert_int_equal(count_usable(), 0);
	/* a device that left is doubted */
	enclave.not_fresh = 0;
	assert_int_equal(count_usable(), 1);
	devices_leave(&daemon_, row, MSG_DEVICE_SUSPECT, "test");
	assert_int_equal(row->fresh_until_ns, 0);
	daemon_.policy = NULL;
	policy_free(policy);
}

/* Turns the loop until `done` holds. */
static void turn_until(bool (*done)(const void *arg), const void *arg)
{
	uint64_t end = clock_now_ns() + 60 * CLOCK_NS_PER_S;

	while (!done(arg)) {
		assert_true(clock_now_ns() < end);
		assert_true(sd_event_run(daemon_.loop, 10000) >= 0);
	}
}

static bool is_connected(const void *arg)
{
	(void)arg;
	return server_first(daemon_.server) != NULL;
}

static bool is_answered(const void *arg)
{
	struct msg answer;
	enum secpool_error error = sock_receive(*(const int *)arg, &answer, NULL, 0);

	if (error == SECPOOL_E_NO_EVENT)
		return false;
	assert_int_equal(error, SECPOOL_OK);
	assert_int_equal(answer.type, MSG_REPLY);
	assert_int_equal(answer.number, 9);
	assert_int_equal(answer.u.reply.error, SECPOOL_E_TIMEOUT);
	assert_non_null(strstr(answer.u.reply.detail, "dev0"));
	return true;
}

static bool is_overwritten(const void *arg)
{
	const uint64_t *region = arg;
	struct regions_row row;

	assert_int_equal(regions_find(daemon_.directory, *region, &row), SECPOOL_OK);
	assert_int_equal(row.unreachable_bytes, 0);
	return row.scrubbed_bytes == 8 * MIB;
}

/* However long hotplugd takes to speak of it after a start: who asked does not wait for that, and the space does. */
static void test_releasing_space_waits_for_its_device(void **state)
{
	struct ending ending = {.client = MSG_CLIENT_ACKNOWLEDGED, .number = 9};
	const uint64_t canary = 7;
	int fd = open(media, O_RDWR | O_CLOEXEC);

	(void)state;
	assert_int_equal(guarded_copy_install(), SECPOOL_OK); /* cmocka sets its own handlers */
	assert_int_equal(
		media_store(fd, 64 * MIB, MEDIA_CANARY_AT, &canary, sizeof canary), SECPOOL_OK);
	os_close(&fd);
	assert_int_equal(online(7, "left"), SECPOOL_OK);
	ending.region = use_some();
	stop_front();
	start_front();
	daemon_.start_ns = clock_now_ns() - 40 * CLOCK_NS_PER_S;
	assert_int_equal(
		regions_release(daemon_.directory, ending.region, ending.client), SECPOOL_OK);
	assert_int_equal(releases_new(&daemon_, &daemon_.releases), SECPOOL_OK);
	assert_int_equal(sock_connect(address, &fd), SECPOOL_OK);
	turn_until(is_connected, NULL);
	ending.connection = server_first(daemon_.server);
	releases_begun(&daemon_, &ending);
	releases_kick(&daemon_);
	turn_until(is_answered, &fd);
	assert_int_equal(bytes_of(ending.region, EXTENTS_RELEASING), 8 * MIB);
	attest(64 * MIB);
	assert_int_equal(online(7, "left"), SECPOOL_OK);
	turn_until(is_overwritten, &ending.region);
	assert_int_equal(bytes_of(0, EXTENTS_FREE), 64 * MIB);
	os_close(&fd);
	releases_free(daemon_.releases);
	daemon_.releases = NULL;
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		TEST(test_another_domain_keeps_all_places),
		TEST(test_a_new_mark_on_the_same_file_sets_aside),
		TEST(test_another_file_loses_all_places),
		TEST(test_a_mark_beside_another_file_is_not_believed),
		TEST(test_after_a_boot_the_mark_decides),
		TEST(test_only_the_attested_size_comes_online),
		TEST(test_a_copy_of_a_tpm_makes_the_other_suspect),
		TEST(test_fresh_is_asked_once),
		TEST(test_releasing_space_waits_for_its_device),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
