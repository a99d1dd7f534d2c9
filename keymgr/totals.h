/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Running totals and free lists of the directory, so that nothing is counted by reading all regions or all extents. Triggers keep them: whatever changes a row of
 * `extents` or `regions` changes its totals in the same transaction, or neither.
 *
 *   space(state, slot, bytes, extents)               how much of a device is in which state
 *   regions.held                                     bytes of all extents that have the region's number
 *   tenant_use(tenant, regions, releasing, bytes)    what regions_count_use says
 *   address_window, address_gaps                     addresses.h keeps them: free ranges of the window
 *
 * The indices beside them are what the statements of extents.c, placement.c and regions.c search by; test_totals.c fails when one of those reads a table, or a device, from end to end.
 */
#ifndef SECPOOL_KEYMGR_TOTALS_H
#define SECPOOL_KEYMGR_TOTALS_H

/*
 * enum extents_state as text: the indices of free extents, and of those that are to be scrubbed, have only these rows, and SQLite uses them only for statements that name the state so.
 */
#define TOTALS_UNKNOWN	 "0"
#define TOTALS_SCRUBBING "1"
#define TOTALS_FREE	 "2"
#define TOTALS_RELEASING "4"

/* Statements, ended by NULL, that are run once, after the tables of the directory were made. */
extern const char *const totals_sql[];

#endif
