/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/lanes.h"

static bool is_there(const struct devices_row *device, enum lanes_count count)
{
	bool on_its_way = device->state == MSG_DEVICE_DISCOVERED ||
			  device->state == MSG_DEVICE_ATTESTING || !device->seen;

	return device->media_fd >= 0 || (count == LANES_PRESUMED && on_its_way);
}

enum secpool_error lanes_live(struct daemon *daemon, uint64_t region, uint64_t lane_bytes,
	uint64_t except_slot, enum lanes_count count, uint32_t *ret_lanes)
{
	struct directory_rows *rows = NULL;
	uint64_t whole[MSG_LANES_MAX] = {0};
	uint32_t lanes = 0;
	enum secpool_error error = directory_query(daemon->directory,
		"SELECT slot, lane, SUM(bytes) FROM extents WHERE region = ?1 AND state = ?2"
		" GROUP BY slot, lane",
		DIRECTORY_VALUES(DIRECTORY_N(region), DIRECTORY_N(EXTENTS_IN_USE)), &rows);

	while (!error && directory_next(rows, &error)) {
		uint64_t slot = directory_get_number(rows, 0), lane = directory_get_number(rows, 1);
		const struct devices_row *device = devices_at(daemon->devices, slot);

		if (slot != except_slot && device && is_there(device, count) &&
			lane < MSG_LANES_MAX)
			whole[lane] += directory_get_number(rows, 2);
	}
	directory_done(rows);
	for (size_t lane = 0; lane < MSG_LANES_MAX; lane++)
		lanes += whole[lane] >= lane_bytes && whole[lane] > 0;
	if (!error)
		*ret_lanes = lanes;
	return error;
}
