/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/sessions.h"

#include <string.h>

#include "lib/base/os.h"

/* A handle is generation 32 | place + 1, 32 bits: 0 is no handle. */
static uint64_t handle_of(const struct sessions *sessions, const struct session *session)
{
	return (uint64_t)session->generation << 32 | (uint64_t)(session - sessions->table + 1);
}

static struct session *find(struct sessions *sessions, uint64_t handle)
{
	uint32_t place = (uint32_t)handle;

	if (place == 0 || place > sessions->most)
		return NULL;
	struct session *session = &sessions->table[place - 1];
	if (!session->used || session->generation != handle >> 32)
		return NULL;
	return session;
}

void sessions_init(struct sessions *sessions, size_t most)
{
	memset(sessions, 0, sizeof *sessions);
	sessions->most = most < SESSIONS_MOST ? most : SESSIONS_MOST;
}

void sessions_done(struct sessions *sessions)
{
	for (size_t i = 0; i < sessions->most; i++)
		if (sessions->table[i].used)
			os_close(&sessions->table[i].socket);
	sessions_init(sessions, sessions->most);
}

/* One that was given back, else one that never was in use; NULL: all are in use. */
static struct session *take_place(struct sessions *sessions)
{
	struct session *place = NULL;

	if (sessions->first_free != 0) {
		place = &sessions->table[sessions->first_free - 1];
		sessions->first_free = place->next_free;
	} else if (sessions->opened < sessions->most) {
		place = &sessions->table[sessions->opened++];
	}
	return place;
}

enum secpool_error sessions_open(
	struct sessions *sessions, const struct session *session, int *socket, uint64_t *ret_handle)
{
	struct session *place = take_place(sessions);
	uint32_t generation;

	if (!place)
		return err_set(SECPOOL_E_LIMIT,
			"%zu sessions are open, which is all that the enclave may have",
			sessions->count);
	generation = place->generation + 1;
	*place = *session;
	place->used = true;
	place->generation = generation;
	place->socket = *socket;
	*socket = -1;
	sessions->count++;
	*ret_handle = handle_of(sessions, place);
	return SECPOOL_OK;
}

enum secpool_error sessions_get(struct sessions *sessions, uint64_t handle, uint64_t now_ns,
	const struct session **ret_session)
{
	const struct session *session = find(sessions, handle);

	if (!session)
		return err_set(SECPOOL_E_SESSION_EXPIRED, "the session was closed: open a new one");
	if (session->expires_ns != 0 && now_ns >= session->expires_ns)
		return err_set(SECPOOL_E_SESSION_EXPIRED,
			"the session's time is over (policy session): open a new one");
	*ret_session = session;
	return SECPOOL_OK;
}

enum secpool_error sessions_close(struct sessions *sessions, uint64_t handle)
{
	struct session *session = find(sessions, handle);

	if (!session)
		return err_set(SECPOOL_E_SESSION_EXPIRED, "the session was closed before");
	os_close(&session->socket);
	session->used = false;
	session->next_free = sessions->first_free;
	sessions->first_free = (uint32_t)(session - sessions->table + 1);
	sessions->count--;
	return SECPOOL_OK;
}
