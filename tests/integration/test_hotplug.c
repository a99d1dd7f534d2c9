/* SPDX-License-Identifier: Apache-2.0 */
/* A real secpool-hotplugd with real TPMs; this program plays keymgrd and the command
 * (hotplug_play.h). */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <cmocka.h>

#include "lib/base/guarded_copy.h"
#include "tests/integration/hotplug_play.h"

static const uint64_t pull_most_ns =
	50ull *
	CLOCK_NS_PER_MS; /* on a busy machine; DESIGN.md section 11 says 10 ms to the clients */

static int tear_down(void **state)
{
	(void)state;
	play_end();
	return 0;
}

/* How many secpool-vtpm processes serve this test's folder; the first one's id. */
static unsigned vtpm_count(pid_t *ret_first)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	unsigned count = 0;

	PLAY_CHECK(proc != NULL);
	while ((entry = readdir(proc)) != NULL) {
		char path[300], *text = NULL;
		size_t bytes = 0;

		snprintf(path, sizeof path, "/proc/%s/cmdline", entry->d_name);
		if (entry->d_name[0] < '0' || entry->d_name[0] > '9' ||
			os_read_file(path, 1 << 16, &text, &bytes))
			continue;
		if (memmem(text, bytes, "secpool-vtpm", 12) &&
			memmem(text, bytes, play.folder, strlen(play.folder))) {
			count++;
			if (ret_first)
				*ret_first = (pid_t)atoi(entry->d_name);
		}
		free(text);
	}
	closedir(proc);
	return count;
}

static void attested_and_listed(void **state)
{
	struct msg list = {.type = MSG_LIST, .u.list = {.what = MSG_LIST_DEVICES}};
	struct play_device *a, *b;

	(void)state;
	play_begin(2);
	a = play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	b = play_wait("dev1", MSG_DEVICE_ONLINE, 1);
	PLAY_CHECK(a->mark != b->mark && a->mark != 0);
	PLAY_CHECK(memcmp(a->begin.ek, b->begin.ek, sizeof a->begin.ek) != 0);
	play_connect();
	PLAY_OK(play_ask(&list));
	PLAY_CHECK(play.rows == 2);
	list.u.list.after = 1;
	play.rows = 0;
	PLAY_OK(play_ask(&list));
	PLAY_CHECK(play.rows == 1);
	PLAY_OK(play_command("dev0", MSG_VERB_ATTEST)); /* a renewal: online all the time */
	PLAY_CHECK(a->verdicts == 2 && a->online_count == 1);
	PLAY_CHECK(vtpm_count(NULL) == 2);
	kill(play.pid, SIGTERM);
	PLAY_CHECK(play_wait_pid(play.pid) == 0);
	play.pid = 0;
	PLAY_CHECK(vtpm_count(NULL) == 0); /* ended and waited for, not left to die */
}

static void pull_and_plug(void **state)
{
	static const char words[] = "what a device keeps without power";
	struct play_device *device;
	char back[sizeof words];
	uint64_t mark;
	void *map;

	(void)state;
	PLAY_OK(guarded_copy_install()); /* here: cmocka sets its own handlers for each test */
	play_begin(1);
	device = play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	mark = device->mark;
	map = mmap(
		NULL, PLAY_CAPACITY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, device->media_fd, 0);
	PLAY_CHECK(map != MAP_FAILED);
	PLAY_OK(guarded_copy((char *)map + 4096, words, sizeof words));
	play_connect();
	PLAY_OK(play_command("dev0", MSG_VERB_PULL));
	PLAY_CHECK(guarded_copy(back, (char *)map + 4096, 1) == SECPOOL_E_DEVICE_GONE);
	play_wait("dev0", MSG_DEVICE_LOST, 1);
	PLAY_CHECK(device->mark == mark); /* says which media are gone */
	PLAY_CHECK(play_command("dev0", MSG_VERB_PULL) == SECPOOL_E_BUSY);
	PLAY_CHECK(strstr(play.answer.u.reply.detail, "lost") != NULL);
	PLAY_CHECK(play_command("dev0", MSG_VERB_ATTEST) == SECPOOL_E_BUSY);
	PLAY_OK(play_command("dev0", MSG_VERB_PLUG));
	play_wait("dev0", MSG_DEVICE_ONLINE, 2);
	PLAY_CHECK(device->mark != mark);
	PLAY_CHECK(pread(device->media_fd, back, sizeof back, 4096) == sizeof back);
	PLAY_CHECK(memcmp(back, words, sizeof back) == 0);
	PLAY_CHECK(play_command("dev0", MSG_VERB_PLUG) == SECPOOL_E_BUSY);
	PLAY_CHECK(strstr(play.answer.u.reply.detail, "online") != NULL);
	munmap(map, PLAY_CAPACITY_BYTES);
}

/* A device whose firmware is another when it returns says so in its evidence, and is kept out. */
static void changed_firmware_is_quarantined(void **state)
{
	struct play_device *device;

	(void)state;
	play_begin(1);
	device = play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	play_connect();
	PLAY_OK(play_command("dev0", MSG_VERB_PULL));
	play_identity("dev0", "evil-2.0");
	PLAY_CHECK(play_command("dev0", MSG_VERB_PLUG) == SECPOOL_E_ATTESTATION);
	PLAY_CHECK(strstr(play.answer.u.reply.detail, "evil-2.0 is not known") != NULL);
	play_wait("dev0", MSG_DEVICE_QUARANTINED, 1);
	PLAY_CHECK(strstr(device->cause, "evil-2.0") != NULL);
	PLAY_CHECK(play_command("dev0", MSG_VERB_ATTEST) == SECPOOL_E_ATTESTATION);
	PLAY_OK(play_command("dev0", MSG_VERB_PULL));
	play_wait("dev0", MSG_DEVICE_ABSENT, 1);
	play_identity("dev0", PLAY_FIRMWARE);
	PLAY_OK(play_command("dev0", MSG_VERB_PLUG));
}

/* Removal by any hand is told at once, also while a TPM hangs and an attestation waits for it. */
static void removed_by_others_while_a_tpm_hangs(void **state)
{
	uint64_t begin, took;
	pid_t pid = 0;

	(void)state;
	play_begin(1);
	play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	PLAY_CHECK(vtpm_count(&pid) == 1);
	kill(pid, SIGSTOP);
	play_connect();
	struct msg attest = {.type = MSG_DEVICE_COMMAND, .number = 5};
	MSG_SET(attest.u.device_command.id, "dev0");
	attest.u.device_command.verb = MSG_VERB_ATTEST;
	play_send(play.command, &attest);
	play_until(play_never, NULL, 100);
	begin = clock_now_ns();
	PLAY_CHECK(truncate(play_path("devices/dev0/media"), 0) == 0);
	play_wait("dev0", MSG_DEVICE_LOST, 1);
	took = clock_now_ns() - begin;
	PLAY_CHECK(took < pull_most_ns);
	unsigned before = 0;
	PLAY_CHECK(play_until(play_is_answered, &before, 1000));
	PLAY_CHECK(play.answer.u.reply.error == SECPOOL_E_DEVICE_GONE);
	PLAY_OK(play_command("dev0", MSG_VERB_PLUG)); /* the hung TPM was killed, a new one runs */
	play_wait("dev0", MSG_DEVICE_ONLINE, 2);
	begin = clock_now_ns();
	PLAY_CHECK(unlink(play_path("devices/dev0/media")) == 0);
	play_wait("dev0", MSG_DEVICE_LOST, 2);
	PLAY_CHECK(clock_now_ns() - begin < pull_most_ns);
}

static void killed_and_restarted(void **state)
{
	struct play_device *device;
	uint64_t mark;

	(void)state;
	play_begin(2);
	device = play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	play_wait("dev1", MSG_DEVICE_ONLINE, 1);
	mark = device->mark;
	kill(play.pid, SIGKILL);
	play_wait_pid(play.pid);
	for (unsigned i = 0; i < 1000 && vtpm_count(NULL); i++)
		clock_sleep_ns(CLOCK_NS_PER_MS);
	PLAY_CHECK(vtpm_count(NULL) == 0);			  /* they died with it */
	PLAY_CHECK(unlink(play_path("devices/dev1/media")) == 0); /* vanished while nobody looked */
	play_start_daemon();
	play_wait("dev0", MSG_DEVICE_ONLINE, 2);
	PLAY_CHECK(device->mark == mark);
	play_wait("dev1", MSG_DEVICE_LOST, 1);
}

static void keymgr_restarted(void **state)
{
	struct msg ask = {.type = MSG_LIST, .number = 3}; /* nothing that keymgrd may send */
	struct play_device *device;

	(void)state;
	play_begin(1);
	device = play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	os_close(&play.keymgr);
	play_wait("dev0", MSG_DEVICE_ONLINE, 2); /* attested again, announced again */
	PLAY_CHECK(play.greetings == 2 && device->verdicts == 2);
	play_send(play.keymgr, &ask);
	play_wait("dev0", MSG_DEVICE_ONLINE, 3);
	PLAY_CHECK(send(play.keymgr, "xx", 2, 0) == 2);
	play_wait("dev0", MSG_DEVICE_ONLINE, 4);
	/* nobody there for a while: commands say so, and the connection comes back by itself */
	os_close(&play.listener);
	os_close(&play.keymgr);
	clock_sleep_ns(300ull * CLOCK_NS_PER_MS);
	play_connect();
	PLAY_CHECK(play_command("dev0", MSG_VERB_ATTEST) == SECPOOL_E_DAEMON_GONE);
	play_listen();
	play_wait("dev0", MSG_DEVICE_ONLINE, 5);
}

static void verdict_is_renewed_and_can_turn_bad(void **state)
{
	struct play_device *device;

	(void)state;
	play_begin(1);
	play.life_ns = CLOCK_NS_PER_S;
	device = play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	play_until(play_never, NULL, 2000);
	PLAY_CHECK(device->verdicts >= 2 && device->verdicts <= 4);
	PLAY_CHECK(device->online_count == 1 && device->state == MSG_DEVICE_ONLINE);
	play.refuse = true;
	play_wait("dev0", MSG_DEVICE_SUSPECT, 1);
	play.refuse = false;
	play_connect();
	PLAY_OK(play_command("dev0", MSG_VERB_ATTEST));
	play_wait("dev0", MSG_DEVICE_ONLINE, 2);
}

static void dead_tpm_is_restarted(void **state)
{
	struct play_device *device;
	pid_t pid = 0, next = 0;

	(void)state;
	play_begin(1);
	device = play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	uint8_t ek[sizeof device->begin.ek];
	memcpy(ek, device->begin.ek, sizeof ek);
	PLAY_CHECK(vtpm_count(&pid) == 1);
	kill(pid, SIGKILL);
	for (unsigned i = 0; i < 100 && device->verdicts < 2; i++)
		play_until(play_never, NULL, 100);
	PLAY_CHECK(device->verdicts == 2 && device->state == MSG_DEVICE_ONLINE);
	PLAY_CHECK(vtpm_count(&next) == 1 && next != pid);
	PLAY_CHECK(memcmp(ek, device->begin.ek, sizeof ek) == 0); /* the same TPM */
}

static void kill_tpm(void)
{
	pid_t pid = 0;

	PLAY_CHECK(vtpm_count(&pid) == 1);
	kill(pid, SIGKILL);
}

static void stop_tpm(void)
{
	pid_t pid = 0;

	PLAY_CHECK(vtpm_count(&pid) == 1);
	kill(pid, SIGSTOP);
}

/* The TPM dies, or hangs, between the challenge and the quote: no verdict, said why, and online when it works again. */
static void tpm_fails_between_the_steps(void **state)
{
	struct play_device *device;
	pid_t pid = 0;

	play_begin(0);
	play.before_challenge = *state ? stop_tpm : kill_tpm;
	play_identity("dev0", PLAY_FIRMWARE);
	device = play_wait("dev0", MSG_DEVICE_QUARANTINED, 0);
	PLAY_CHECK(strstr(device->cause, "its TPM failed") != NULL);
	PLAY_CHECK(device->verdicts == 0);
	PLAY_CHECK(vtpm_count(&pid) == 1 || !*state);
	if (*state)
		kill(pid, SIGCONT);
	device = play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	PLAY_CHECK(device->verdicts == 1);
}

static bool has_left_online(const void *arg)
{
	return play_device(arg)->state != MSG_DEVICE_ONLINE;
}

/* The TPM of a device that is in use hangs: when its evidence is too old it is suspect, and keymgrd is told why. */
static void tpm_hangs_until_evidence_is_old(void **state)
{
	struct play_device *device;

	(void)state;
	play_begin(0);
	play.life_ns = 2 * CLOCK_NS_PER_S;
	play_identity("dev0", PLAY_FIRMWARE);
	device = play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	stop_tpm();
	/* one look at a TPM goes on for as long as one that was just started may take */
	PLAY_CHECK(play_until(has_left_online, "dev0", 3 * PLAY_WAIT_MS));
	PLAY_CHECK(device->state == MSG_DEVICE_SUSPECT && device->verdicts == 1);
	PLAY_CHECK(strstr(device->cause, "its TPM failed") != NULL);
}

static void bad_bytes_make_suspect(void **state)
{
	struct msg check = {.type = MSG_DEVICE_CHECK};

	(void)state;
	play_begin(1);
	play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	MSG_SET(check.u.device_check.id, "dev9");
	check.u.device_check.cause = MSG_CAUSE_TAG;
	play_send(play.keymgr, &check); /* of no device: passed over */
	MSG_SET(check.u.device_check.id, "dev0");
	check.u.device_check.tenants = 1; /* one tenant may lie, however often */
	for (unsigned i = 0; i < 100; i++)
		play_send(play.keymgr, &check);
	play_until(play_never, NULL, 200);
	PLAY_CHECK(play_device("dev0")->state == MSG_DEVICE_ONLINE);
	check.u.device_check.tenants = 2;
	play_send(play.keymgr, &check);
	play_wait("dev0", MSG_DEVICE_SUSPECT, 1);
}

static void ask_drain(bool cut_off)
{
	struct msg msg = {.type = MSG_DEVICE_DRAIN, .u.device_drain.cut_off = cut_off};

	MSG_SET(msg.u.device_drain.id, "dev0");
	MSG_SET(msg.u.device_drain.cause, "refused");
	play_send(play.keymgr, &msg);
}

/* keymgrd has a device that was refused drained, and gives up what is left there; one that is online is none of its business. */
static void revoked_devices_are_drained(void **state)
{
	struct msg drained = {.type = MSG_DEVICE_DRAINED};
	struct play_device *device;

	(void)state;
	play_begin(1);
	device = play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	play_connect();
	ask_drain(false);
	ask_drain(true);
	play_until(play_never, NULL, 300);
	PLAY_CHECK(device->state == MSG_DEVICE_ONLINE);
	play.refuse = true;
	PLAY_CHECK(play_command("dev0", MSG_VERB_ATTEST) == SECPOOL_E_ATTESTATION);
	play_wait("dev0", MSG_DEVICE_SUSPECT, 1);
	PLAY_CHECK(device->why == MSG_WHY_REFUSED);
	ask_drain(false);
	play_wait("dev0", MSG_DEVICE_DRAINING, 1);
	PLAY_CHECK(strcmp(device->cause, "refused: what is there moves elsewhere") == 0);
	ask_drain(true);
	play_wait("dev0", MSG_DEVICE_QUARANTINED, 1);
	ask_drain(true);
	PLAY_CHECK(play_command("dev0", MSG_VERB_ATTEST) == SECPOOL_E_ATTESTATION);
	play_wait("dev0", MSG_DEVICE_QUARANTINED, 1);
	PLAY_CHECK(device->why == MSG_WHY_REFUSED);
	ask_drain(false);
	play_wait("dev0", MSG_DEVICE_DRAINING, 1);
	MSG_SET(drained.u.device_drained.id, "dev0");
	play_send(play.keymgr, &drained);
	play_wait("dev0", MSG_DEVICE_OFFLINE, 1);
	play.refuse = false;
	PLAY_OK(play_command("dev0", MSG_VERB_ATTEST));
	play_wait("dev0", MSG_DEVICE_ONLINE, 2);
	PLAY_CHECK(device->why == MSG_WHY_OTHER);
}

/* The note in its folder is not only for a device that is online first. */
static void drain_of_a_refused_device_goes_on(void **state)
{
	struct play_device *device;

	(void)state;
	play_begin(1);
	play.refuse = true;
	device = play_wait("dev0", MSG_DEVICE_QUARANTINED, 0);
	play_connect();
	PLAY_OK(play_command("dev0", MSG_VERB_DRAIN));
	play_wait("dev0", MSG_DEVICE_DRAINING, 0);
	kill(play.pid, SIGKILL);
	play_wait_pid(play.pid);
	device->state = MSG_DEVICE_ABSENT;
	device->why = MSG_WHY_OTHER;
	play_start_daemon();
	play_wait("dev0", MSG_DEVICE_DRAINING, 0);
	PLAY_CHECK(device->verdicts == 2 && device->why == MSG_WHY_COMMAND);
	play.refuse = false;
	play_connect();
	PLAY_OK(play_command("dev0", MSG_VERB_ATTEST)); /* an operator calls it off */
	play_wait("dev0", MSG_DEVICE_ONLINE, 1);
}

static void added_while_running(void **state)
{
	static const char garbage[] = "{\"id\":\"../../etc\"";

	(void)state;
	play_begin(0);
	play_until(play_never, NULL, 200);
	PLAY_OK(os_make_dir(play_path("devices/dev2"), 0700));
	PLAY_OK(os_write_file_durable(
		play_path("devices/dev2/identity.json"), garbage, sizeof garbage - 1, 0600));
	play_until(play_never, NULL, 200);
	PLAY_CHECK(play_device("dev2")->state == MSG_DEVICE_ABSENT);
	play_identity("dev2", PLAY_FIRMWARE); /* completed later */
	play_wait("dev2", MSG_DEVICE_ONLINE, 1);
	play_identity("dev3", PLAY_FIRMWARE);
	play_wait("dev3", MSG_DEVICE_ONLINE, 1);
}

/* Sends bytes as they are on a connection of their own; the error of the REPLY, after which it must
 * be closed. */
static enum secpool_error raw(const void *bytes, size_t count, bool greet)
{
	unsigned before = play.answers;
	int fd = -1;

	if (greet) {
		play_connect();
	} else {
		PLAY_OK(sock_connect(play_path("hotplug.sock"), &fd));
		os_close(&play.command);
		play.command = fd;
		play.command_closed = false;
	}
	PLAY_CHECK(send(play.command, bytes, count, MSG_NOSIGNAL) == (ssize_t)count);
	PLAY_CHECK(play_until(play_is_answered, &before, PLAY_WAIT_MS));
	PLAY_CHECK(play.answer.type == MSG_REPLY);
	before = play.answers;
	PLAY_CHECK(play_until(play_is_answered, &before, PLAY_WAIT_MS) && play.command_closed);
	return err_from_number(play.answer.u.reply.error);
}

static void refusals(void **state)
{
	uint8_t bytes[MSG_BYTES_MAX + 1] = {0};
	struct msg msg = {.type = MSG_DEVICE_COMMAND};
	size_t count;

	(void)state;
	play_begin(1);
	play_wait("dev0", MSG_DEVICE_ONLINE, 1);
	PLAY_CHECK(raw("x", 1, false) == SECPOOL_E_PROTOCOL);
	PLAY_CHECK(raw(bytes, sizeof bytes, true) == SECPOOL_E_PROTOCOL);
	PLAY_OK(msg_encode(&msg, bytes, MSG_BYTES_MAX, &count));
	PLAY_CHECK(raw(bytes, count, false) == SECPOOL_E_PROTOCOL); /* no HELLO */
	PLAY_CHECK(raw(bytes, count - 1, true) == SECPOOL_E_PROTOCOL);
	msg.u.device_command.verb = 99;
	MSG_SET(msg.u.device_command.id, "dev0");
	PLAY_OK(msg_encode(&msg, bytes, MSG_BYTES_MAX, &count));
	PLAY_CHECK(raw(bytes, count, true) == SECPOOL_E_PROTOCOL);
	msg = (struct msg){.type = MSG_HELLO, .u.hello = {MSG_VERSION, MSG_ROLE_CLIENT}};
	PLAY_OK(msg_encode(&msg, bytes, MSG_BYTES_MAX, &count));
	PLAY_CHECK(raw(bytes, count, false) == SECPOOL_E_PROTOCOL);
	play_connect();
	PLAY_CHECK(play_command("dev7", MSG_VERB_PULL) == SECPOOL_E_NOT_FOUND);
	PLAY_CHECK(strstr(play.answer.u.reply.detail, "dev7") != NULL);
	PLAY_CHECK(play_command("dev0", MSG_VERB_INJECT) == SECPOOL_E_INVALID); /* nothing named */
	PLAY_CHECK(play_command("dev0", MSG_VERB_RETIRE) == SECPOOL_E_UNSUPPORTED);
	PLAY_CHECK(strstr(play.answer.u.reply.detail, "emulated") != NULL);
	msg = (struct msg){.type = MSG_DEVICE_COMMAND,
		.u.device_command = {.id = "dev0", .verb = MSG_VERB_PULL, .silent_ms = 1u << 31}};
	PLAY_CHECK(play_ask(&msg) == SECPOOL_E_INVALID);
	PLAY_CHECK(play_device("dev0")->state == MSG_DEVICE_ONLINE);
	PLAY_OK(play_command("dev0", MSG_VERB_DRAIN));
	play_wait("dev0", MSG_DEVICE_DRAINING, 1);
	PLAY_CHECK(play_command("dev0", MSG_VERB_DRAIN) == SECPOOL_E_BUSY);
	PLAY_OK(play_command("dev0", MSG_VERB_ATTEST)); /* it goes on */
	play_wait("dev0", MSG_DEVICE_ONLINE, 2);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_teardown(f, tear_down)
	static int hang;
	const struct CMUnitTest tests[] = {
		TEST(attested_and_listed),
		TEST(pull_and_plug),
		TEST(changed_firmware_is_quarantined),
		TEST(removed_by_others_while_a_tpm_hangs),
		TEST(killed_and_restarted),
		TEST(keymgr_restarted),
		TEST(verdict_is_renewed_and_can_turn_bad),
		TEST(dead_tpm_is_restarted),
		TEST(tpm_fails_between_the_steps),
		cmocka_unit_test_prestate_setup_teardown(
			tpm_fails_between_the_steps, NULL, tear_down, &hang),
		TEST(tpm_hangs_until_evidence_is_old),
		TEST(bad_bytes_make_suspect),
		TEST(revoked_devices_are_drained),
		TEST(drain_of_a_refused_device_goes_on),
		TEST(added_while_running),
		TEST(refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
