/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/peer.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/base/os.h"

/* Messages read in one go, so that one peer does not keep the loop from the others. */
enum { READ_AT_ONCE = 16 };

struct queued {
	struct queued *next;
	int fd; /* -1: none */
	struct msg msg;
};

struct peer {
	const struct peer_callbacks *callbacks;
	void *arg;
	int fd;
	sd_event_source *io, *end;
	struct queued *first, **last;
	unsigned queued;
	bool ended; /* the callback `closed` is due */
	enum secpool_error why;
	char detail[ERR_DETAIL_BYTES];
};

static int on_end(sd_event_source *source, void *arg)
{
	struct peer *peer = arg;

	(void)source;
	err_set(peer->why, "%s", peer->detail);
	peer->callbacks->closed(peer, peer->why, peer->arg);
	return 0;
}

static void end(struct peer *peer, enum secpool_error why)
{
	if (peer->ended)
		return;
	peer->ended = true;
	peer->why = why;
	msg_set_text(peer->detail, sizeof peer->detail, err_detail());
	sd_event_source_set_enabled(peer->io, SD_EVENT_OFF);
	sd_event_source_set_enabled(peer->end, SD_EVENT_ONESHOT);
}

static void free_first(struct peer *peer)
{
	struct queued *entry = peer->first;

	peer->first = entry->next;
	if (!peer->first)
		peer->last = &peer->first;
	os_close(&entry->fd);
	free(entry);
	peer->queued--;
}

/* SECPOOL_E_TIMEOUT: the peer must read first. */
static enum secpool_error send_now(struct peer *peer, const struct msg *msg, int fd)
{
	return sock_send(peer->fd, msg, fd < 0 ? NULL : &fd, fd < 0 ? 0 : 1, 0);
}

static void flush(struct peer *peer)
{
	while (peer->first && !peer->ended) {
		enum secpool_error error = send_now(peer, &peer->first->msg, peer->first->fd);

		if (error == SECPOOL_E_TIMEOUT)
			return;
		if (error)
			end(peer, error);
		else
			free_first(peer);
	}
	if (!peer->ended)
		sd_event_source_set_io_events(peer->io, EPOLLIN);
}

static int on_io(sd_event_source *source, int fd, uint32_t events, void *arg)
{
	struct peer *peer = arg;
	struct msg msg;

	(void)source;
	if (events & EPOLLOUT)
		flush(peer);
	for (unsigned i = 0; i < READ_AT_ONCE && !peer->ended && (events & ~(uint32_t)EPOLLOUT);
		i++) {
		enum secpool_error error = sock_receive(fd, &msg, NULL, 0);

		if (error == SECPOOL_E_NO_EVENT)
			break;
		if (error == SECPOOL_E_PROTOCOL)
			peer_refuse(peer, 0, error);
		else if (error)
			end(peer, error);
		else
			peer->callbacks->message(peer, &msg, peer->arg);
	}
	return 0;
}

enum secpool_error peer_new(sd_event *loop, int fd, const struct peer_callbacks *callbacks,
	void *arg, struct peer **ret_peer)
{
	struct peer *peer = calloc(1, sizeof *peer);

	if (!peer)
		return err_set(SECPOOL_E_NO_MEMORY, "a connection: out of memory");
	peer->callbacks = callbacks;
	peer->arg = arg;
	peer->fd = -1;
	peer->last = &peer->first;
	if (sd_event_add_io(loop, &peer->io, fd, EPOLLIN, on_io, peer) < 0 ||
		sd_event_add_defer(loop, &peer->end, on_end, peer) < 0 ||
		sd_event_source_set_enabled(peer->end, SD_EVENT_OFF) < 0) {
		peer_free(peer);
		return err_set(SECPOOL_E_SYSTEM, "a connection can't be watched");
	}
	peer->fd = fd;
	*ret_peer = peer;
	return SECPOOL_OK;
}

static enum secpool_error enqueue(struct peer *peer, const struct msg *msg, int fd)
{
	struct queued *entry;

	if (peer->queued >= PEER_QUEUE_MOST)
		return err_set(SECPOOL_E_TIMEOUT, "the peer does not read: %u messages wait for it",
			peer->queued);
	entry = malloc(sizeof *entry);
	if (!entry)
		return err_set(SECPOOL_E_NO_MEMORY, "a message for a peer: out of memory");
	entry->next = NULL;
	entry->msg = *msg;
	entry->fd = -1;
	if (fd >= 0) {
		entry->fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
		if (entry->fd < 0) {
			free(entry);
			return os_error("dup");
		}
	}
	*peer->last = entry;
	peer->last = &entry->next;
	peer->queued++;
	return SECPOOL_OK;
}

void peer_send(struct peer *peer, const struct msg *msg, int fd)
{
	enum secpool_error error = SECPOOL_E_TIMEOUT;

	if (peer->ended)
		return;
	if (!peer->first)
		error = send_now(peer, msg, fd);
	if (error == SECPOOL_E_TIMEOUT) {
		error = enqueue(peer, msg, fd);
		if (!error)
			sd_event_source_set_io_events(peer->io, EPOLLIN | EPOLLOUT);
	}
	if (error)
		end(peer, error);
}

void peer_reply(struct peer *peer, uint32_t number, enum secpool_error error)
{
	struct msg msg = {.type = MSG_REPLY, .number = number};

	msg.u.reply.error = (uint32_t)error;
	MSG_SET(msg.u.reply.detail, error == SECPOOL_OK ? "" : err_detail());
	peer_send(peer, &msg, -1);
}

void peer_refuse(struct peer *peer, uint32_t number, enum secpool_error error)
{
	peer_reply(peer, number, error);
	end(peer, error);
}

void peer_free(struct peer *peer)
{
	if (!peer)
		return;
	while (peer->first)
		free_first(peer);
	sd_event_source_disable_unref(peer->io);
	sd_event_source_disable_unref(peer->end);
	os_close(&peer->fd);
	free(peer);
}
