/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/devclaims.h"

#include <string.h>

#include "keymgr/directory.h"
#include "keymgr/hotplug.h"

void devclaims_made(struct devices *devices, const char *id, uint64_t bytes)
{
	struct devices_claim *claim = NULL;

	for (size_t i = 0; i < DEVICES_CLAIMS_MOST && !claim; i++)
		if (strcmp(devices->claims[i].id, id) == 0)
			claim = &devices->claims[i];
	if (!claim)
		claim = &devices->claims[devices->next_claim++ % DEVICES_CLAIMS_MOST];
	MSG_SET(claim->id, id);
	claim->bytes = bytes;
}

void devclaims_proved(struct devices *devices, struct devices_row *row)
{
	row->attested_bytes = 0;
	for (size_t i = 0; i < DEVICES_CLAIMS_MOST; i++)
		if (strcmp(devices->claims[i].id, row->id) == 0)
			row->attested_bytes = devices->claims[i].bytes;
}

enum secpool_error devclaims_remember_ek(
	struct daemon *daemon, const char *id, const uint8_t ek[DEVICES_EK_BYTES], uint64_t resets)
{
	struct devices_row *row = devices_find(daemon->devices, id);
	enum secpool_error error;
	bool same;

	if (!row)
		return SECPOOL_OK;
	same = memcmp(row->ek, ek, sizeof row->ek) == 0; /* lint: memcmp of public bytes */
	/* another TPM, which the policy names for the id, is the policy's to remember */
	if (row->ek_known && (resets <= row->resets || !same))
		return SECPOOL_OK;
	/* a row that is not in the directory yet gets there with its EK when it comes online */
	error = directory_run(daemon->directory,
		"UPDATE devices SET ek = IFNULL(ek, ?2), resets = ?3 WHERE slot = ?1",
		DIRECTORY_VALUES(DIRECTORY_N(row->slot), DIRECTORY_B(ek, DEVICES_EK_BYTES),
			DIRECTORY_N(resets)));
	if (error)
		return error;
	if (!row->ek_known)
		memcpy(row->ek, ek, sizeof row->ek);
	row->ek_known = true;
	row->resets = resets;
	return SECPOOL_OK;
}

void devclaims_doubt(struct daemon *daemon, const char *id, const uint8_t ek[DEVICES_EK_BYTES])
{
	for (size_t i = 0; i < daemon->devices->count; i++) {
		struct devices_row *row = daemon->devices->rows[i];
		char reason[ERR_DETAIL_BYTES];

		if (row->state != MSG_DEVICE_ONLINE || !row->ek_known || strcmp(row->id, id) == 0 ||
			memcmp(row->ek, ek, sizeof row->ek) != 0) /* lint: memcmp of public bytes */
			continue;
		if (devices_fresh(daemon, row->id) == SECPOOL_OK)
			continue;
		msg_set_text(reason, sizeof reason, err_detail());
		hotplug_check(daemon, row, MSG_CAUSE_TAG, 0);
		devices_leave(daemon, row, MSG_DEVICE_SUSPECT, reason);
	}
}
