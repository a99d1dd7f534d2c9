/* SPDX-License-Identifier: Apache-2.0 */
/* A loaded policy as policy.c keeps it, build.c and devices.c make it and decide.c asks it. Threads: immutable once built. */
#ifndef SECPOOL_POLICY_MODEL_H
#define SECPOOL_POLICY_MODEL_H

#include "lib/wire/msg.h"
#include "policy/policy.h"
#include "policy/schema.h"

/* Bytes of names with the NUL, and of a TPM name with SHA-256 (TPM 2.0 part 1, section 16). */
enum { MODEL_NAME_BYTES = 64, MODEL_EK_BYTES = 34, MODEL_PCR_BYTES = 32 };

struct model_tenant {
	char name[MODEL_NAME_BYTES];
	char *users_text;
	uint32_t *uids, *gids; /* users named, and members of the groups named; groups */
	size_t uid_count, gid_count;
	struct policy_quota quota;
	uint32_t copies_allowed; /* bit n: regions of n copies */
	uint32_t coded_allowed[MSG_PARITY_MAX + 1]; /* [m], bit k: regions of k data lanes and m of parity */
	uint32_t on_loss_allowed; /* bit n: enum msg_on_loss n */
	char (*share_with)[MODEL_NAME_BYTES]; /* tenants that may read its sealed regions, where it grants that */
	size_t share_count;
	size_t uids_named; /* so many of uids, the first ones, are users that the file names */
	unsigned lines[POLICY_RULES]; /* where the file has each rule; the tenant's line where it leaves one out */
};

struct model_known {
	char id[MODEL_NAME_BYTES];
	uint8_t ek[MODEL_EK_BYTES];
};

/* A device that must not be used: by its id, or by its EK where id is empty. */
struct model_revoked {
	char id[MODEL_NAME_BYTES];
	uint8_t ek[MODEL_EK_BYTES];
};

/* A value that a PCR may have. */
struct model_reference {
	char name[MODEL_NAME_BYTES];
	unsigned pcr;
	uint8_t value[MODEL_PCR_BYTES];
};

/* The tier behind the policy's last one. */
#define MODEL_REST_TIER "rest"

struct model_tier {
	char name[MODEL_NAME_BYTES];
	uint64_t latency_ns; /* devices up to this, above that of the tier before */
};

struct policy {
	struct policy_settings settings;
	struct model_tier tiers[SCHEMA_TIERS_MOST];
	size_t tier_count;
	struct model_tenant *tenants;
	struct model_known *known;
	struct model_revoked *revoked;
	char (*firmware)[MODEL_NAME_BYTES];
	struct model_reference *references;
	char **ek_ca;
	size_t tenant_count, known_count, revoked_count, firmware_count, reference_count, ek_ca_count;
	unsigned tenants_line;
	bool first_use;
};

/*
 * Checks the file's values and fills the policy, which starts as zeros; what was made stays in it on error.
 * Errors: SECPOOL_E_POLICY with "NAME:LINE: what was expected"; SECPOOL_E_NO_MEMORY.
 */
enum secpool_error build_policy(const struct schema_file *file, const struct lines *lines,
	const char *name, struct policy *policy) MUST_USE;

/* The same for what it says of devices (NULL: nothing, and then none may be used): first those settings that are about them, then the rest. */
struct value_source;
enum secpool_error devices_build_settings(const struct value_source *source,
	const struct schema_devices *from, struct policy_settings *to) MUST_USE;
enum secpool_error devices_build(const struct value_source *source,
	const struct schema_devices *from, struct policy *policy) MUST_USE;

/* Fills one tenant; as build_policy. index: its place in the file. */
enum secpool_error users_build(const struct schema_tenant *from, size_t index,
	const struct lines *lines, const char *name, struct model_tenant *tenant) MUST_USE;

/* One redundancy (none, mirror:N, ec:K+M; ec: every code) or loss mode that a tenant may have, by its name; false, and nothing, for anything else. */
bool model_allow_redundancy(const char *text, struct model_tenant *tenant);
bool model_allow_on_loss(const char *text, struct model_tenant *tenant);

/* Whether the tenant may have regions of this shape, one that msg_redundancy_valid allows. */
bool model_redundancy_allowed(const struct model_tenant *tenant, uint32_t data, uint32_t lanes);

/* The tenant of that name; NULL when there is none. */
const struct model_tenant *model_tenant(const struct policy *policy, const char *name);

#endif
