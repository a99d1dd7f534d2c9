/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/evidence.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "enclave/quote_verify.h"
#include "lib/base/os.h"

enum { FOLDER_MODE = 0755, FILE_MODE = 0644, PEM_BYTES = 512, PCRS = 24 };

static enum secpool_error save(
	const char *folder, const char *name, const void *bytes, size_t count)
{
	char path[PATH_MAX];

	if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
		return err_set(SECPOOL_E_LIMIT, "path too long: %.100s", folder);
	return os_write_file_durable(path, bytes, count, FILE_MODE);
}

static enum secpool_error save_text(const char *folder, const char *name, const char *text)
{
	return save(folder, name, text, strlen(text));
}

static bool is_possible(const struct msg_device_evidence *e)
{
	return e->ak_bytes <= sizeof e->ak && e->attest_bytes <= sizeof e->attest &&
	       e->signature_bytes <= sizeof e->signature && e->log_bytes <= sizeof e->log &&
	       e->pcr_count <= sizeof e->pcr_values / TPM_PCR_BYTES;
}

/* "sha256:0,2" */
static void name_selection(uint32_t pcrs, char *text, size_t bytes)
{
	int used = snprintf(text, bytes, "sha256");

	for (unsigned pcr = 0, first = 1; pcr < PCRS; pcr++) {
		if (!(pcrs & 1u << pcr))
			continue;
		used += snprintf(text + used, bytes - (size_t)used, "%c%u", first ? ':' : ',', pcr);
		first = 0;
	}
}

enum secpool_error evidence_write(const char *folder, const struct msg_device_evidence *e)
{
	char pem[PEM_BYTES], selection[8 + 3 * PCRS], nonce[2 * sizeof e->nonce + 1];
	enum secpool_error error;

	if (!is_possible(e))
		return err_set(SECPOOL_E_PROTOCOL, "hotplugd's evidence has impossible lengths");
	error = quote_public_pem(e->ak, e->ak_bytes, pem, sizeof pem);
	if (!error)
		error = os_make_dir(folder, FOLDER_MODE);
	name_selection(e->pcrs, selection, sizeof selection);
	for (size_t i = 0; i < sizeof e->nonce; i++)
		snprintf(nonce + 2 * i, 3, "%02x", e->nonce[i]);
	if (!error)
		error = save_text(folder, "ak.pem", pem);
	if (!error)
		error = save(folder, "quote.msg", e->attest, e->attest_bytes);
	if (!error)
		error = save(folder, "quote.sig", e->signature, e->signature_bytes);
	if (!error)
		error = save(
			folder, "quote.pcrs", e->pcr_values, (size_t)e->pcr_count * TPM_PCR_BYTES);
	if (!error)
		error = save_text(folder, "pcr_selection", selection);
	if (!error)
		error = save_text(folder, "nonce.hex", nonce);
	if (!error)
		error = save(folder, "eventlog", e->log, e->log_bytes);
	return error;
}
