/* SPDX-License-Identifier: Apache-2.0 */
/* The table of revocation.h. */
#include "keymgr/revocation.h"

struct entry {
	enum revocation_action now, at_end;
	enum policy_drains needs; /* of the policy, for MOVE */
};

#define MOVE(level, end)                                                                           \
	{                                                                                          \
		REVOCATION_MOVE, REVOCATION_##end, POLICY_DRAINS_##level                           \
	}
#define STAY(first, end)                                                                           \
	{                                                                                          \
		REVOCATION_##first, REVOCATION_##end, POLICY_DRAINS_NONE                           \
	}

/*
 * Evidence that is merely old says nothing against the data: it is moved, and what can't be stays. What was refused, or is revoked, is over at the end whatever it is. What is under a tag may be
 * read from any device, so single data is moved by reading it there.
 */
static const struct entry table[REVOCATION_CAUSES][REVOCATION_SITUATIONS] = {
	[REVOCATION_NONE] = {STAY(HOLD, HOLD), STAY(HOLD, HOLD), STAY(HOLD, HOLD),
		STAY(HOLD, HOLD)},
	[REVOCATION_REFUSED] = {STAY(HOLD, HOLD), MOVE(REDUNDANT, DESTROY), MOVE(READABLE, DESTROY),
		STAY(DESTROY, DESTROY)},
	[REVOCATION_LISTED] = {STAY(HOLD, HOLD), MOVE(REDUNDANT, DESTROY), MOVE(READABLE, DESTROY),
		STAY(DESTROY, DESTROY)},
	[REVOCATION_EXPIRED] = {STAY(HOLD, HOLD), MOVE(REDUNDANT, HOLD), MOVE(READABLE, HOLD),
		STAY(HOLD, HOLD)},
	[REVOCATION_UNREACHABLE] = {STAY(HOLD, HOLD), STAY(HOLD, HOLD), STAY(HOLD, HOLD),
		STAY(HOLD, HOLD)},
	[REVOCATION_ERRORS] = {STAY(HOLD, HOLD), STAY(HOLD, HOLD), STAY(HOLD, HOLD),
		STAY(HOLD, HOLD)},
};

static const struct entry *find(enum revocation_cause cause, enum revocation_situation situation)
{
	if ((unsigned)cause >= REVOCATION_CAUSES || (unsigned)situation >= REVOCATION_SITUATIONS)
		return &table[REVOCATION_NONE][REVOCATION_NOTHING];
	return &table[cause][situation];
}

enum revocation_action revocation_now(
	enum revocation_cause cause, enum revocation_situation situation, enum policy_drains drains)
{
	const struct entry *entry = find(cause, situation);

	return entry->now == REVOCATION_MOVE && drains < entry->needs ? REVOCATION_HOLD
								      : entry->now;
}

enum revocation_action revocation_at_end(
	enum revocation_cause cause, enum revocation_situation situation)
{
	return find(cause, situation)->at_end;
}

enum revocation_cause revocation_cause_of(uint32_t state, uint32_t why, bool listed)
{
	if (state != MSG_DEVICE_QUARANTINED && state != MSG_DEVICE_SUSPECT)
		return REVOCATION_NONE;
	if (listed)
		return REVOCATION_LISTED;
	switch ((enum msg_why)why) {
	case MSG_WHY_REFUSED:
		return REVOCATION_REFUSED;
	case MSG_WHY_EXPIRED:
		return REVOCATION_EXPIRED;
	case MSG_WHY_UNREACHABLE:
		return REVOCATION_UNREACHABLE;
	case MSG_WHY_ERRORS:
		return REVOCATION_ERRORS;
	case MSG_WHY_OTHER:
	case MSG_WHY_COMMAND:
		break;
	}
	return REVOCATION_NONE;
}

const char *revocation_cause_name(enum revocation_cause cause)
{
	static const char *const names[REVOCATION_CAUSES] = {
		[REVOCATION_NONE] = "none",
		[REVOCATION_REFUSED] = "refused",
		[REVOCATION_LISTED] = "revoked",
		[REVOCATION_EXPIRED] = "expired",
		[REVOCATION_UNREACHABLE] = "unreachable",
		[REVOCATION_ERRORS] = "errors",
	};

	return (unsigned)cause < REVOCATION_CAUSES ? names[cause] : "?";
}

const char *revocation_situation_name(enum revocation_situation situation)
{
	static const char *const names[REVOCATION_SITUATIONS] = {
		[REVOCATION_NOTHING] = "nothing there",
		[REVOCATION_REDUNDANT] = "redundant",
		[REVOCATION_SINGLE] = "single",
		[REVOCATION_FOREIGN] = "other media",
	};

	return (unsigned)situation < REVOCATION_SITUATIONS ? names[situation] : "?";
}

const char *revocation_action_name(enum revocation_action action)
{
	static const char *const names[REVOCATION_ACTIONS] = {
		[REVOCATION_HOLD] = "hold",
		[REVOCATION_MOVE] = "move",
		[REVOCATION_DESTROY] = "destroy",
	};

	return (unsigned)action < REVOCATION_ACTIONS ? names[action] : "?";
}
