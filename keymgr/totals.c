/* SPDX-License-Identifier: Apache-2.0 */
#include "keymgr/totals.h"

#include "keymgr/extents.h"

/* Numbers of extents.h and msg.h that an index or a trigger must have as text. */
#define RELEASING "2"
#define UNIT	  "2097152"
_Static_assert(EXTENTS_UNKNOWN == 0, "TOTALS_UNKNOWN");
_Static_assert(EXTENTS_SCRUBBING == 1, "TOTALS_SCRUBBING");
_Static_assert(EXTENTS_FREE == 2, "TOTALS_FREE");
_Static_assert(EXTENTS_RELEASING == 4, "TOTALS_RELEASING");
_Static_assert(MSG_REGION_RELEASING == 2, "RELEASING");
_Static_assert(EXTENTS_UNIT_BYTES == 2097152, "UNIT");

#define WHOLE(bytes) "((" bytes ") + " UNIT " - 1) / " UNIT " * " UNIT
/* Bytes of a lane as extents_take takes them (msg_lane_bytes, in units). */
#define LANE(r)                                                                                    \
	WHOLE("(" r ".bytes / " r ".page_bytes + " r ".data - 1) / " r ".data * " r ".page_bytes")
/* What a region counts for its tenant's quota: regions_use in regions.h. */
#define CHARGE(r) "(" WHOLE(r ".bytes") " + MAX(" r ".held - " LANE(r) " * " r ".lanes, 0))"

#define ADD_SPACE(row)                                                                             \
	" INSERT INTO space VALUES (" row ".state, " row ".slot, " row ".bytes, 1)"                \
	"  ON CONFLICT (state, slot)"                                                              \
	"  DO UPDATE SET bytes = bytes + excluded.bytes, extents = extents + 1;"
#define TAKE_SPACE(row)                                                                            \
	" UPDATE space SET bytes = bytes - " row ".bytes, extents = extents - 1"                   \
	"  WHERE state = " row ".state AND slot = " row ".slot;"
#define HOLD(row, sign)                                                                            \
	" UPDATE regions SET held = held " sign " " row ".bytes WHERE id = " row ".region;"
#define ADD_USE(row)                                                                               \
	" INSERT INTO tenant_use VALUES (" row ".tenant, " row ".state != " RELEASING ","          \
	"  " row ".state = " RELEASING ", " CHARGE(                                                \
		row) ")"                                                                           \
		     "  ON CONFLICT (tenant) DO UPDATE SET regions = regions + excluded.regions,"  \
		     "  releasing = releasing + excluded.releasing, bytes = bytes + "              \
		     "excluded.bytes;"
#define TAKE_USE(row)                                                                              \
	" UPDATE tenant_use SET regions = regions - (" row ".state != " RELEASING "),"             \
	"  releasing = releasing - (" row ".state = " RELEASING "),"                               \
	"  bytes = bytes - " CHARGE(row) " WHERE tenant = " row ".tenant;"
#define TRIGGER(name, event, body) "CREATE TRIGGER " name " AFTER " event " BEGIN" body " END"

const char *const totals_sql[] = {
	"CREATE TABLE space (state INTEGER NOT NULL, slot INTEGER NOT NULL, bytes INTEGER NOT NULL,"
	"  extents INTEGER NOT NULL, PRIMARY KEY (state, slot)) WITHOUT ROWID",
	"CREATE TABLE tenant_use (tenant TEXT PRIMARY KEY, regions INTEGER NOT NULL,"
	"  releasing INTEGER NOT NULL, bytes INTEGER NOT NULL) WITHOUT ROWID",
	"CREATE TABLE address_window (base INTEGER NOT NULL, bytes INTEGER NOT NULL)",
	"CREATE TABLE address_gaps (start INTEGER PRIMARY KEY, bytes INTEGER NOT NULL)",
	"CREATE INDEX address_gaps_bytes ON address_gaps(bytes, start)",
	"CREATE INDEX extents_free ON extents(slot, bytes, offset) WHERE state = " TOTALS_FREE,
	"CREATE INDEX extents_work ON extents(state, slot, region, offset) WHERE state "
	"= " TOTALS_UNKNOWN " OR state = " TOTALS_SCRUBBING " OR state = " TOTALS_RELEASING,
	"CREATE INDEX regions_process ON regions(pid, start_ticks)",
	"CREATE INDEX regions_ended ON regions(id) WHERE state = " RELEASING " AND held = 0",

	TRIGGER("extents_added", "INSERT ON extents", ADD_SPACE("NEW") HOLD("NEW", "+")),
	TRIGGER("extents_removed", "DELETE ON extents", TAKE_SPACE("OLD") HOLD("OLD", "-")),
	TRIGGER("extents_changed",
		"UPDATE OF slot, bytes, state ON extents"
		" WHEN NEW.slot != OLD.slot OR NEW.bytes != OLD.bytes OR NEW.state != OLD.state",
		TAKE_SPACE("OLD") ADD_SPACE("NEW")),
	TRIGGER("extents_passed",
		"UPDATE OF region, bytes ON extents"
		" WHEN NEW.region IS NOT OLD.region OR NEW.bytes != OLD.bytes",
		HOLD("OLD", "-") HOLD("NEW", "+")),
	TRIGGER("regions_added", "INSERT ON regions", ADD_USE("NEW")),
	TRIGGER("regions_removed", "DELETE ON regions", TAKE_USE("OLD")),
	TRIGGER("regions_changed",
		"UPDATE OF tenant, bytes, page_bytes, data, lanes, held, state ON regions"
		" WHEN NEW.tenant != OLD.tenant OR NEW.state != OLD.state"
		" OR " CHARGE("NEW") " != " CHARGE("OLD"),
		TAKE_USE("OLD") ADD_USE("NEW")),
	NULL,
};
