/* SPDX-License-Identifier: Apache-2.0 */
#include "hotplug/devstate.h"

#include <stdbool.h>

struct entry {
	bool allowed;
	enum msg_state next;
	enum devstate_action action;
};

#define ON(event, to, what)                                                                        \
	[DEVSTATE_##event] = {                                                                     \
		.allowed = true, .next = MSG_DEVICE_##to, .action = DEVSTATE_DO_##what}

/*
 * A device that was found and vanishes is lost: it may hold data from before (a restart of keymgrd
 * brings an online device through attesting). One that is kept out, or was emptied, is merely
 * absent.
 */
static const struct entry table[MSG_DEVICE_STATES][DEVSTATE_EVENTS] = {
	[MSG_DEVICE_ABSENT] =
		{
			ON(FOUND, DISCOVERED, START), ON(CONNECTED, ABSENT, NOTHING),
			ON(DISCONNECTED, ABSENT, NOTHING),
			ON(REMOVED, LOST,
				NOTHING), /* known from before, without its media at start */
		},
	[MSG_DEVICE_DISCOVERED] =
		{
			ON(ATTEST, ATTESTING, ATTEST),
			ON(CONNECTED, ATTESTING, ATTEST),
			ON(DISCONNECTED, DISCOVERED, NOTHING),
			ON(REMOVED, LOST, STOP),
		},
	[MSG_DEVICE_ATTESTING] =
		{
			ON(ACCEPTED, ONLINE, ADMIT),
			ON(REFUSED, QUARANTINED, CONFINE),
			ON(UNREACHABLE, QUARANTINED, RETRY),
			ON(CONNECTED, ATTESTING, ATTEST),
			ON(DISCONNECTED, DISCOVERED, ABANDON),
			ON(REMOVED, LOST, STOP),
		},
	[MSG_DEVICE_ONLINE] =
		{
			ON(ATTEST, ONLINE, ATTEST),
			ON(ACCEPTED, ONLINE, ADMIT),
			ON(REFUSED, SUSPECT, CONFINE),
			ON(UNREACHABLE, ONLINE, RETRY),
			ON(EXPIRED, SUSPECT, CONFINE),
			ON(ERRORS, SUSPECT, CONFINE),
			ON(CONNECTED, ATTESTING, ATTEST),
			ON(DISCONNECTED, DISCOVERED, ABANDON),
			ON(DRAIN, DRAINING, CONFINE),
			ON(REMOVED, LOST, STOP),
		},
	[MSG_DEVICE_DRAINING] =
		{
			ON(ATTEST, ATTESTING, ATTEST), /* the drain is called off */
			ON(ERRORS, DRAINING, NOTHING),
			ON(CONNECTED, DRAINING, TELL),
			ON(DISCONNECTED, DRAINING, NOTHING),
			ON(DRAINED, OFFLINE, NOTHING),
			ON(CUT_OFF, QUARANTINED, CONFINE),
			ON(REMOVED, LOST, STOP),
		},
	[MSG_DEVICE_OFFLINE] =
		{
			ON(ATTEST, ATTESTING, ATTEST),
			ON(CONNECTED, OFFLINE, TELL),
			ON(DISCONNECTED, OFFLINE, NOTHING),
			ON(REMOVED, ABSENT, STOP),
		},
	[MSG_DEVICE_QUARANTINED] =
		{
			ON(ATTEST, ATTESTING, ATTEST),
			ON(CONNECTED, ATTESTING, ATTEST),
			ON(DISCONNECTED, QUARANTINED, NOTHING),
			ON(DRAIN, DRAINING, CONFINE),
			ON(CUT_OFF, QUARANTINED, NOTHING),
			ON(REMOVED, ABSENT, STOP),
		},
	[MSG_DEVICE_SUSPECT] =
		{
			ON(ATTEST, ATTESTING, ATTEST),
			ON(ERRORS, SUSPECT, NOTHING),
			ON(CONNECTED, SUSPECT, TELL),
			ON(DISCONNECTED, SUSPECT, NOTHING),
			ON(DRAIN, DRAINING, NOTHING),
			ON(CUT_OFF, QUARANTINED, CONFINE),
			ON(REMOVED, LOST, STOP),
		},
	[MSG_DEVICE_LOST] =
		{
			ON(FOUND, DISCOVERED, START),
			ON(CONNECTED, LOST, TELL),
			ON(DISCONNECTED, LOST, NOTHING),
		},
};

enum secpool_error devstate_next(enum msg_state state, enum devstate_event event,
	enum msg_state *ret_next, enum devstate_action *ret_action)
{
	const struct entry *entry;

	if ((unsigned)state >= MSG_DEVICE_STATES || (unsigned)event >= DEVSTATE_EVENTS)
		return err_set(SECPOOL_E_BUSY, "there is no device state %u or no event %u",
			(unsigned)state, (unsigned)event);
	entry = &table[state][event];
	if (!entry->allowed)
		return err_set(SECPOOL_E_BUSY,
			"the event '%s' means nothing to a device that is %s",
			devstate_event_name(event), msg_device_state_name(state));
	*ret_next = entry->next;
	*ret_action = entry->action;
	return SECPOOL_OK;
}

const char *devstate_event_name(enum devstate_event event)
{
	static const char *const names[DEVSTATE_EVENTS] = {
		[DEVSTATE_FOUND] = "found",
		[DEVSTATE_ATTEST] = "attest",
		[DEVSTATE_ACCEPTED] = "accepted",
		[DEVSTATE_REFUSED] = "refused",
		[DEVSTATE_UNREACHABLE] = "unreachable",
		[DEVSTATE_EXPIRED] = "expired",
		[DEVSTATE_ERRORS] = "errors",
		[DEVSTATE_CONNECTED] = "connected",
		[DEVSTATE_DISCONNECTED] = "disconnected",
		[DEVSTATE_DRAIN] = "drain",
		[DEVSTATE_DRAINED] = "drained",
		[DEVSTATE_CUT_OFF] = "cut off",
		[DEVSTATE_REMOVED] = "removed",
	};

	return (unsigned)event < DEVSTATE_EVENTS ? names[event] : "?";
}

const char *devstate_action_name(enum devstate_action action)
{
	static const char *const names[DEVSTATE_ACTIONS] = {
		[DEVSTATE_DO_NOTHING] = "nothing",
		[DEVSTATE_DO_START] = "start",
		[DEVSTATE_DO_ATTEST] = "attest",
		[DEVSTATE_DO_ADMIT] = "admit",
		[DEVSTATE_DO_CONFINE] = "confine",
		[DEVSTATE_DO_RETRY] = "retry",
		[DEVSTATE_DO_ABANDON] = "abandon",
		[DEVSTATE_DO_STOP] = "stop",
		[DEVSTATE_DO_TELL] = "tell",
	};

	return (unsigned)action < DEVSTATE_ACTIONS ? names[action] : "?";
}
