/* SPDX-License-Identifier: Apache-2.0 */
/*
 * keymgrd's side of the socket, played for a real secpool-hotplugd with real TPMs: it makes the
 * challenge, checks the evidence for what the device said it is, and gives a verdict. Beside it a
 * command on hotplug.sock. Everything is served by play_until, on one thread. Any failure ends the
 * test.
 */
#ifndef SECPOOL_TESTS_HOTPLUG_PLAY_H
#define SECPOOL_TESTS_HOTPLUG_PLAY_H

#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "enclave/eventlog.h"
#include "enclave/quote_verify.h"
#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "lib/wire/sock.h"

enum { PLAY_DEVICES = 4, PLAY_WAIT_MS = 20000, PLAY_CAPACITY_BYTES = 4 << 20, PLAY_PCRS = 0x5 };
#define PLAY_FIRMWARE "secpool-emulated-1.0"

/* A device as keymgrd was told. */
struct play_device {
	char id[MSG_NAME_BYTES];
	uint32_t state, why;
	uint64_t mark;
	int media_fd; /* of the last `online` */
	char cause[192];
	unsigned online_count, verdicts;
	struct msg_attest_begin begin;
	uint8_t nonce[QUOTE_NONCE_BYTES], media[QUOTE_NONCE_BYTES], secret[QUOTE_SECRET_BYTES];
};

static struct play {
	char folder[64];
	int listener, keymgr, command; /* -1: closed */
	pid_t pid;
	struct play_device devices[PLAY_DEVICES];
	unsigned greetings;
	uint64_t life_ns;  /* of a verdict */
	bool refuse; /* verdicts are bad */
	void (*before_challenge)(void); /* called once, when a device has presented itself */
	struct msg answer; /* the last one to the command */
	unsigned answers, rows;
	bool command_closed;
} play;

#define PLAY_CHECK(what)                                                                           \
	do {                                                                                       \
		if (!(what)) {                                                                     \
			fprintf(stderr, "%s:%d: not so: %s (%s)\n", __FILE__, __LINE__, #what,     \
				err_detail());                                                     \
			play_end();                                                                \
			exit(1);                                                                   \
		}                                                                                  \
	} while (0)
#define PLAY_OK(call) PLAY_CHECK((call) == SECPOOL_OK)

static inline const char *play_path(const char *format, ...) PRINTF_LIKE(1, 2);
static inline const char *play_path(const char *format, ...)
{
	static char paths[4][PATH_MAX];
	static unsigned turn;
	char *path = paths[turn++ % 4], name[256];
	va_list args;

	va_start(args, format);
	vsnprintf(name, sizeof name, format, args);
	va_end(args);
	snprintf(path, PATH_MAX, "%s/%s", play.folder, name);
	return path;
}

/* Waits for the process at most PLAY_WAIT_MS; its wait status. */
static inline int play_wait_pid(pid_t pid)
{
	int status = -1;

	for (unsigned i = 0; i < PLAY_WAIT_MS && waitpid(pid, &status, WNOHANG) == 0; i++)
		clock_sleep_ns(CLOCK_NS_PER_MS);
	return status;
}

static inline void play_end(void)
{
	if (play.pid > 0) {
		kill(play.pid, SIGKILL);
		waitpid(play.pid, NULL, 0);
		play.pid = 0;
	}
	os_close(&play.command);
	os_close(&play.keymgr);
	os_close(&play.listener);
	for (unsigned i = 0; i < PLAY_DEVICES; i++)
		os_close(&play.devices[i].media_fd);
	if (os_remove_tree(play.folder))
		fprintf(stderr, "%s: %s\n", play.folder, err_detail());
}

static inline void play_start_daemon(void)
{
	char program[PATH_MAX], *slash;
	ssize_t length = readlink("/proc/self/exe", program, sizeof program - 64);

	PLAY_CHECK(length > 0);
	program[length] = '\0';
	slash = strrchr(program, '/');
	PLAY_CHECK(slash != NULL);
	strcpy(slash, "/../../bin/secpool-hotplugd");
	play.pid = fork();
	if (play.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (!getenv("PLAY_LOG") && !freopen(play_path("log"), "a", stderr))
			_exit(126);
		execl(program, program, "--runtime-dir", play.folder, "--devices",
			play_path("devices"), NULL);
		_exit(127);
	}
	PLAY_CHECK(play.pid > 0);
}

static inline void play_identity(const char *id, const char *firmware)
{
	char text[512];

	snprintf(text, sizeof text,
		"{\"id\":\"%s\",\"serial\":\"S-%s\",\"bytes\":%d,\"firmware\":\"%s\","
		"\"domain\":\"domain-%s\",\"kind\":\"emulated\"}",
		id, id, PLAY_CAPACITY_BYTES, firmware, id);
	PLAY_OK(os_make_dir(play_path("devices/%s", id), 0700));
	PLAY_OK(os_write_file_durable(
		play_path("devices/%s/identity.json", id), text, strlen(text), 0600));
}

static inline void play_listen(void)
{
	PLAY_OK(sock_listen(play_path("keymgr.sock"), 0600, &play.listener));
}

/* devices: how many are there at the start, dev0 and so on. */
static inline void play_begin(unsigned devices)
{
	char id[16];

	memset(&play, 0, sizeof play);
	play.listener = play.keymgr = play.command = -1;
	for (unsigned i = 0; i < PLAY_DEVICES; i++)
		play.devices[i].media_fd = -1;
	play.life_ns = 3600 * CLOCK_NS_PER_S;
	strcpy(play.folder, "/dev/shm/spt-hp-XXXXXX");
	PLAY_CHECK(mkdtemp(play.folder) != NULL);
	PLAY_OK(os_make_dir(play_path("on-tmpfs"), 0700));
	PLAY_CHECK(
		symlink("on-tmpfs", play_path("devices")) == 0); /* as `secpool up` may have it */
	for (unsigned i = 0; i < devices; i++) {
		snprintf(id, sizeof id, "dev%u", i);
		play_identity(id, PLAY_FIRMWARE);
	}
	play_listen();
	play_start_daemon();
}

static inline struct play_device *play_device(const char *id)
{
	for (unsigned i = 0; i < PLAY_DEVICES; i++) {
		if (!play.devices[i].id[0])
			MSG_SET(play.devices[i].id, id);
		if (strcmp(play.devices[i].id, id) == 0)
			return &play.devices[i];
	}
	PLAY_CHECK(!"too many devices");
	return NULL;
}

static inline void play_send(int fd, const struct msg *msg)
{
	PLAY_OK(sock_send(fd, msg, NULL, 0, clock_now_ns() + CLOCK_NS_PER_S));
}

static inline void play_challenge(const struct msg *msg)
{
	struct play_device *device = play_device(msg->u.attest_begin.id);
	struct msg answer = {.type = MSG_ATTEST_CHALLENGE, .number = msg->number};
	struct msg_attest_challenge *challenge = &answer.u.attest_challenge;
	size_t credential, secret;

	device->begin = msg->u.attest_begin;
	if (play.before_challenge) {
		void (*call)(void) = play.before_challenge;

		play.before_challenge = NULL;
		call();
	}
	os_random(device->nonce, sizeof device->nonce);
	os_random(device->media, sizeof device->media);
	os_random(device->secret, sizeof device->secret);
	PLAY_OK(quote_make_credential(device->begin.ek, device->begin.ek_bytes, device->begin.ak,
		device->begin.ak_bytes, device->secret, challenge->credential, &credential,
		challenge->secret, &secret));
	MSG_SET(challenge->id, device->id);
	memcpy(challenge->nonce, device->nonce, sizeof challenge->nonce);
	memcpy(challenge->media, device->media, sizeof challenge->media);
	challenge->pcrs = PLAY_PCRS;
	challenge->credential_bytes = (uint32_t)credential;
	challenge->secret_bytes = (uint32_t)secret;
	play_send(play.keymgr, &answer);
}

/* The evidence must be right in all; the verdict then follows the known-good firmware, as the
 * enclave's would. */
static inline void play_verdict(const struct msg *msg)
{
	const struct msg_attest_evidence *evidence = &msg->u.attest_evidence;
	struct play_device *device = play_device(evidence->id);
	struct msg answer = {.type = MSG_ATTEST_VERDICT, .number = msg->number};
	uint8_t bound[QUOTE_NONCE_BYTES];
	struct eventlog_facts told;
	struct quote_facts facts;

	PLAY_CHECK(evidence->activated_bytes == sizeof device->secret);
	PLAY_CHECK(memcmp(evidence->activated, device->secret, sizeof device->secret) == 0);
	PLAY_CHECK(evidence->pcr_count == 2);
	PLAY_OK(tpm_bind_nonce(device->nonce, device->media, bound));
	PLAY_OK(quote_verify(device->begin.ek, device->begin.ek_bytes, device->begin.ak,
		device->begin.ak_bytes, evidence->attest, evidence->attest_bytes,
		evidence->signature, evidence->signature_bytes, bound, sizeof bound,
		PLAY_PCRS, evidence->pcr_values, evidence->pcr_count, &facts));
	PLAY_CHECK(evidence->log_bytes <= sizeof evidence->log);
	PLAY_OK(eventlog_replay(
		evidence->log, evidence->log_bytes, PLAY_PCRS, evidence->pcr_values, &told));
	PLAY_CHECK(strcmp(told.firmware, device->begin.firmware) == 0);
	PLAY_CHECK(strcmp(told.id, device->id) == 0 && told.bytes == device->begin.bytes);
	PLAY_CHECK(strcmp(told.serial, device->begin.serial) == 0);
	MSG_SET(answer.u.attest_verdict.id, device->id);
	answer.u.attest_verdict.expires_ns = clock_now_ns() + play.life_ns;
	if (play.refuse || strcmp(device->begin.firmware, PLAY_FIRMWARE) != 0) {
		answer.u.attest_verdict.error = SECPOOL_E_ATTESTATION;
		answer.u.attest_verdict.expires_ns = 0;
		snprintf(answer.u.attest_verdict.reason, sizeof answer.u.attest_verdict.reason,
			"firmware %s is not known", device->begin.firmware);
	}
	device->verdicts++;
	play_send(play.keymgr, &answer);
}

static inline void play_state(const struct msg *msg, struct sock_extra *extra)
{
	const struct msg_device_state *state = &msg->u.device_state;
	struct play_device *device = play_device(state->id);
	char domain[64];

	snprintf(domain, sizeof domain, "domain-%.50s", state->id);
	PLAY_CHECK(strcmp(state->domain, domain) == 0 && state->kind == MSG_KIND_EMULATED);
	PLAY_CHECK(state->bytes == PLAY_CAPACITY_BYTES);
	/* what a drain leaves is overwritten by who has the media */
	PLAY_CHECK((state->state == MSG_DEVICE_ONLINE || state->state == MSG_DEVICE_DRAINING) ==
		   (extra->fd_count == 1));
	/* online is reached through attesting alone */
	PLAY_CHECK(state->state != MSG_DEVICE_ONLINE || device->state == MSG_DEVICE_ATTESTING);
	device->state = state->state;
	device->why = state->why;
	device->mark = state->media;
	MSG_SET(device->cause, state->cause);
	if (state->state == MSG_DEVICE_ONLINE) {
		device->online_count++;
		os_close(&device->media_fd);
		device->media_fd = sock_take_fd(extra, 0);
		PLAY_CHECK((fcntl(device->media_fd, F_GETFL) & O_ACCMODE) == O_RDWR);
	}
}

static inline void play_keymgr(void)
{
	struct msg msg, hello = {.type = MSG_HELLO};
	struct sock_extra extra = {.fd_count = 0};
	enum secpool_error error = sock_receive(play.keymgr, &msg, &extra, 0);

	if (error == SECPOOL_E_NO_EVENT)
		return;
	if (error) {
		os_close(&play.keymgr);
		return;
	}
	if (msg.type == MSG_HELLO) {
		PLAY_CHECK(msg.u.hello.role == MSG_ROLE_HOTPLUG);
		hello.number = msg.number;
		hello.u.hello.version = MSG_VERSION;
		play.greetings++;
		play_send(play.keymgr, &hello);
	} else if (msg.type == MSG_ATTEST_BEGIN) {
		play_challenge(&msg);
	} else if (msg.type == MSG_ATTEST_EVIDENCE) {
		play_verdict(&msg);
	} else if (msg.type == MSG_DEVICE_STATE) {
		play_state(&msg, &extra);
	}
	sock_close_fds(&extra);
}

static inline void play_command_answer(void)
{
	struct msg msg;
	enum secpool_error error = sock_receive(play.command, &msg, NULL, 0);

	if (error == SECPOOL_E_NO_EVENT)
		return;
	if (error) {
		os_close(&play.command);
		play.command_closed = true;
	} else if (msg.type == MSG_DEVICE_ROW) {
		play.rows++;
		play.answer = msg;
	} else {
		play.answers++;
		play.answer = msg;
	}
}

/* Serves all sockets until `done` holds; false after ms. */
static inline bool play_until(bool (*done)(const void *arg), const void *arg, unsigned ms)
{
	uint64_t deadline_ns = clock_now_ns() + (uint64_t)ms * CLOCK_NS_PER_MS;

	while (!done(arg)) {
		struct pollfd fds[3] = {{.fd = play.listener, .events = POLLIN},
			{.fd = play.keymgr, .events = POLLIN},
			{.fd = play.command, .events = POLLIN}};

		if (clock_now_ns() >= deadline_ns)
			return false;
		if (poll(fds, 3, 10) <= 0)
			continue;
		if (fds[0].revents) {
			os_close(&play.keymgr);
			if (sock_accept(play.listener, &play.keymgr))
				play.keymgr = -1;
		} else if (fds[1].revents) {
			play_keymgr();
		}
		if (fds[2].revents)
			play_command_answer();
	}
	return true;
}

struct play_want {
	const char *id;
	uint32_t state;
	unsigned online_count;
};

static inline bool play_is_state(const void *arg)
{
	const struct play_want *want = arg;
	const struct play_device *device = play_device(want->id);

	return device->state == want->state && device->online_count >= want->online_count;
}

/* Until the device was told to be in the state, and was online this often. */
static inline struct play_device *play_wait(const char *id, uint32_t state, unsigned online_count)
{
	struct play_want want = {id, state, online_count};

	if (!play_until(play_is_state, &want, PLAY_WAIT_MS))
		fprintf(stderr, "device %s is %s (%s), not %s\n", id,
			msg_device_state_name(play_device(id)->state), play_device(id)->cause,
			msg_device_state_name(state));
	PLAY_CHECK(play_is_state(&want));
	return play_device(id);
}

static inline bool play_never(const void *arg)
{
	(void)arg;
	return false;
}

/* ---- the command ---- */

static inline void play_connect(void)
{
	os_close(&play.command);
	play.command_closed = false;
	PLAY_OK(sock_connect_as(play_path("hotplug.sock"), MSG_ROLE_ADMIN, &play.command));
}

static inline bool play_is_answered(const void *arg)
{
	return play.answers > *(const unsigned *)arg || play.command_closed;
}

/* Sends a request and serves until its answer came; the error in it. */
static inline enum secpool_error play_ask(struct msg *msg)
{
	unsigned before = play.answers;

	msg->number = 1000 + before;
	play_send(play.command, msg);
	PLAY_CHECK(play_until(play_is_answered, &before, PLAY_WAIT_MS));
	PLAY_CHECK(play.answers == before + 1);
	PLAY_CHECK(play.answer.type == MSG_REPLY && play.answer.number == msg->number);
	return err_from_number(play.answer.u.reply.error);
}

static inline enum secpool_error play_command(const char *id, uint32_t verb)
{
	struct msg msg = {.type = MSG_DEVICE_COMMAND};

	MSG_SET(msg.u.device_command.id, id);
	msg.u.device_command.verb = verb;
	return play_ask(&msg);
}

#endif
