/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/peer.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "lib/base/clock.h"
#include "lib/base/os.h"
#include "tests/bench/zram.h"

/* A swap device that holds all of what may be pushed out of a limit. */
static const size_t SWAP_BYTES = 2ul << 30;
/* The limit while the peer opens; how often, and with what pauses, the real one is tried. */
static const size_t OPEN_BYTES = 2ul << 30;
enum { TRIES = 200, PAUSE_NS = 5 * CLOCK_NS_PER_MS };

struct answer {
	enum secpool_error error;
	char detail[ERR_DETAIL_BYTES];
	uint8_t bytes[PEER_MESSAGE_BYTES];
};

static bool read_all(int fd, void *bytes, size_t count)
{
	uint8_t *at = bytes;

	while (count > 0) {
		ssize_t got = read(fd, at, count);
		if (got < 0 && os_interrupted())
			continue;
		if (got <= 0)
			return false;
		at += got;
		count -= (size_t)got;
	}
	return true;
}

/* Not os_write_all: the bench may have gone, and SIGPIPE would end the keeper before it has cleaned up. */
static void say(int fd, enum secpool_error error, struct answer *answer)
{
	answer->error = error;
	snprintf(answer->detail, sizeof answer->detail, "%s", error ? err_detail() : "");
	(void)!send(fd, answer, sizeof *answer, MSG_NOSIGNAL);
}

/*
 * Lowers the group's limit; the kernel swaps out what is too much, or is busy. A limit from the start has ended the building of a database in the kernel's
 * out-of-memory killer, although there was swap enough.
 */
static enum secpool_error tighten(const struct zram *zram, size_t limit_bytes)
{
	static const char *const names[] = {"memory.limit_in_bytes", "memory.max"};
	char path[sizeof zram->group + 32], text[32];

	snprintf(text, sizeof text, "%zu", limit_bytes);
	for (unsigned i = 0; i < TRIES; i++) {
		bool written;
		int fd;

		snprintf(path, sizeof path, "%s/%s", zram->group, names[i % 2]);
		fd = open(path, O_WRONLY | O_CLOEXEC);
		written = fd >= 0 && write(fd, text, strlen(text)) > 0;
		os_close(&fd);
		if (written)
			return SECPOOL_OK;
		clock_sleep_ns(PAUSE_NS);
	}
	return err_set(
		SECPOOL_E_BUSY, "%s: the limit of %s bytes could not be set", zram->group, text);
}

/* The peer's process: opens, then serves until the bench closes the pipe. zram: NULL, or what it is in. */
static void __attribute__((noreturn))
work_on(const struct peer_work *work, const struct zram *zram, size_t limit_bytes, int fd)
{
	uint8_t request[PEER_MESSAGE_BYTES];
	struct answer answer = {.error = SECPOOL_OK};
	enum secpool_error error = work->open(work->arg);

	if (!error && zram)
		error = tighten(zram, limit_bytes);
	say(fd, error, &answer);
	while (!error && read_all(fd, request, sizeof request))
		say(fd, work->serve(work->arg, request, answer.bytes), &answer);
	_exit(error ? 1 : 0);
}

/* The worker joins the group before it touches what it measures. */
static void work_limited(
	const struct zram *zram, const struct peer_work *work, size_t limit_bytes, int fd)
{
	struct answer answer = {.error = SECPOOL_OK};
	pid_t pid = fork();

	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (zram_join(zram))
			work_on(work, zram, limit_bytes, fd);
		say(fd,
			err_set(SECPOOL_E_DENIED, "the peer could not be limited: %s",
				err_detail()),
			&answer);
		_exit(1);
	}
	if (pid < 0)
		say(fd, os_error("fork"), &answer);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && os_interrupted())
		;
}

static void ignore_signals(void)
{
	signal(SIGINT, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
}

/* The keeper's process. The worker inherits that SIGINT is ignored: it ends with its socket. */
static void __attribute__((noreturn)) keep(const struct peer_work *work, size_t limit_bytes, int fd)
{
	struct answer answer = {.error = SECPOOL_OK};
	enum secpool_error error;
	struct zram zram;

	ignore_signals();
	error = zram_open(SWAP_BYTES, OPEN_BYTES, &zram);
	if (error) {
		say(fd, error, &answer);
		_exit(1);
	}
	work_limited(&zram, work, limit_bytes, fd);
	zram_close(&zram);
	_exit(0);
}

static enum secpool_error hear(struct peer *peer, void *bytes, size_t count)
{
	struct answer answer;

	if (!read_all(peer->fd, &answer, sizeof answer))
		return err_set(SECPOOL_E_CLOSED, "the peer's process has ended");
	answer.detail[sizeof answer.detail - 1] = '\0';
	if (answer.error)
		return err_set(answer.error, "%s", answer.detail);
	if (count > 0)
		memcpy(bytes, answer.bytes, count);
	return SECPOOL_OK;
}

enum secpool_error peer_start(struct peer *peer, const struct peer_work *work, size_t limit_bytes)
{
	int pair[2];
	enum secpool_error error;

	*peer = (struct peer){.fd = -1};
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
		return os_error("socketpair");
	fflush(NULL);
	peer->pid = fork();
	if (peer->pid == 0) {
		os_close(&pair[0]);
		if (limit_bytes > 0)
			keep(work, limit_bytes, pair[1]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		work_on(work, NULL, 0, pair[1]);
	}
	os_close(&pair[1]);
	peer->fd = pair[0];
	if (peer->pid < 0) {
		error = os_error("fork");
		peer->pid = 0;
		os_close(&peer->fd);
		return error;
	}
	error = hear(peer, NULL, 0);
	if (error) {
		char detail[ERR_DETAIL_BYTES];

		snprintf(detail, sizeof detail, "%s", err_detail());
		peer_stop(peer);
		err_set(error, "%s", detail);
	}
	return error;
}

enum secpool_error peer_ask(struct peer *peer, const void *request, size_t request_bytes,
	void *answer, size_t answer_bytes)
{
	uint8_t whole[PEER_MESSAGE_BYTES] = {0};

	if (request_bytes > sizeof whole || answer_bytes > PEER_MESSAGE_BYTES)
		return err_set(SECPOOL_E_LIMIT, "a peer's message of %zu and %zu bytes",
			request_bytes, answer_bytes);
	memcpy(whole, request, request_bytes);
	if (send(peer->fd, whole, sizeof whole, MSG_NOSIGNAL) != sizeof whole)
		return err_set(SECPOOL_E_CLOSED, "the peer's process has ended");
	return hear(peer, answer, answer_bytes);
}

void peer_stop(struct peer *peer)
{
	if (peer->pid == 0)
		return;
	/* peers that were started later hold copies of the descriptor: closing it would not be noticed */
	shutdown(peer->fd, SHUT_RDWR);
	os_close(&peer->fd);
	while (waitpid(peer->pid, NULL, 0) < 0 && os_interrupted())
		;
	*peer = (struct peer){.fd = -1};
}
