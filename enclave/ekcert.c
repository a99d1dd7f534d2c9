/* SPDX-License-Identifier: Apache-2.0 */
#include "enclave/ekcert.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdlib.h>

#include "enclave/quote_key.h"
#include "lib/base/os.h"

/* tcg-kp-EKCertificate; tcg-at-tpmManufacturer, -tpmModel, -tpmVersion: EK Credential Profile 2.5, sections 3.2.8 and 3.2.9 */
#define EK_CERTIFICATE_USAGE "2.23.133.8.1"
static const char *const TPM_ATTRIBUTES[] = {"2.23.133.2.1", "2.23.133.2.2", "2.23.133.2.3"};

/* OpenSSL's security level of 112 bits: RSA of 2048 bits, SHA-224 and more (SSL_CTX_set_security_level(3)). */
enum { SECURITY_LEVEL = 2 };

struct ekcert_cas {
	X509_STORE *store;
	unsigned count;
	bool root; /* one of them is self-signed */
};

/* ---- the operator's files ---- */

static enum secpool_error bad_file(const char *name, const char *what)
{
	return err_set(SECPOOL_E_POLICY, "devices.ek_ca: %.160s: %s", name, what);
}

static enum secpool_error add_ca(struct ekcert_cas *cas, X509 *ca, const char *name)
{
	if (X509_check_ca(ca) != 1)
		return bad_file(name, "a certificate in it is not a CA's");
	if (++cas->count > EKCERT_CAS_MOST)
		return bad_file(name, "with it there are too many certificates");
	if (X509_STORE_add_cert(cas->store, ca) != 1)
		return bad_file(name, "OpenSSL does not take a certificate in it");
	cas->root = cas->root || X509_self_signed(ca, 1) == 1;
	return SECPOOL_OK;
}

/* All certificates of a PEM text; anything else in it is refused, as a file that was cut would be. */
static enum secpool_error add_text(
	struct ekcert_cas *cas, const char *text, size_t bytes, const char *name)
{
	BIO *bio = BIO_new_mem_buf(text, (int)bytes);
	enum secpool_error error = SECPOOL_OK;
	unsigned found = 0;
	X509 *ca = NULL;

	if (!bio)
		return err_set(SECPOOL_E_NO_MEMORY, "%s: out of memory", name);
	ERR_clear_error();
	while (!error && (ca = PEM_read_bio_X509(bio, NULL, NULL, NULL)) != NULL) {
		error = add_ca(cas, ca, name);
		X509_free(ca);
		found++;
	}
	if (!error && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
		error = bad_file(name, "a certificate in it is malformed");
	if (!error && found == 0)
		error = bad_file(name, "it has no certificate in PEM");
	ERR_clear_error();
	BIO_free(bio);
	return error;
}

static enum secpool_error new_cas(struct ekcert_cas **ret_cas)
{
	struct ekcert_cas *cas = calloc(1, sizeof *cas);

	if (cas)
		cas->store = X509_STORE_new();
	if (!cas || !cas->store) {
		free(cas);
		return err_set(SECPOOL_E_NO_MEMORY, "devices.ek_ca: out of memory");
	}
	*ret_cas = cas;
	return SECPOOL_OK;
}

void ekcert_free(struct ekcert_cas *cas)
{
	if (!cas)
		return;
	X509_STORE_free(cas->store);
	free(cas);
}

/* Takes cas; gives it out if it can be used. */
static enum secpool_error finish(
	struct ekcert_cas *cas, enum secpool_error error, struct ekcert_cas **ret_cas)
{
	if (!error && !cas->root)
		error = err_set(SECPOOL_E_POLICY,
			"devices.ek_ca: none of its certificates is a root (self-signed): no chain "
			"could end there");
	if (error)
		ekcert_free(cas);
	else
		*ret_cas = cas;
	return error;
}

enum secpool_error ekcert_load_text(
	const char *text, size_t bytes, const char *name, struct ekcert_cas **ret_cas)
{
	struct ekcert_cas *cas = NULL;
	enum secpool_error error = new_cas(&cas);

	if (error)
		return error;
	if (bytes > EKCERT_FILE_BYTES_MOST)
		error = bad_file(name, "it is too long");
	else
		error = add_text(cas, text, bytes, name);
	return finish(cas, error, ret_cas);
}

enum secpool_error ekcert_load(const struct policy *policy, struct ekcert_cas **ret_cas)
{
	struct ekcert_cas *cas = NULL;
	enum secpool_error error;
	const char *path;

	*ret_cas = NULL;
	if (!policy_ek_ca(policy, 0))
		return SECPOOL_OK;
	error = new_cas(&cas);
	if (error)
		return error;
	for (size_t i = 0; !error && (path = policy_ek_ca(policy, i)) != NULL; i++) {
		char *text = NULL;
		size_t bytes = 0;

		error = os_read_file(path, EKCERT_FILE_BYTES_MOST, &text, &bytes);
		if (error)
			error = err_set(SECPOOL_E_POLICY, "devices.ek_ca: %.220s", err_detail());
		else
			error = add_text(cas, text, bytes, path);
		free(text);
	}
	return finish(cas, error, ret_cas);
}

/* ---- a device's certificate ---- */

static enum secpool_error refuse(const char *reason)
{
	return err_set(SECPOOL_E_ATTESTATION, "the EK certificate is refused: %s", reason);
}

static X509 *parse(const uint8_t *bytes, size_t count)
{
	const uint8_t *at = bytes;
	X509 *certificate = d2i_X509(NULL, &at, (long)count);

	for (; certificate && at < bytes + count; at++)
		if (*at != 0x00 && *at != 0xff) {
			X509_free(certificate);
			return NULL;
		}
	return certificate;
}

static enum secpool_error check_key(const X509 *certificate, const struct quote_key *ek)
{
	const EVP_PKEY *key = X509_get0_pubkey(certificate);

	if (!key || EVP_PKEY_eq(key, ek->pkey) != 1)
		return refuse("it is for another key than this TPM's EK");
	return SECPOOL_OK;
}

static bool has_usage(X509 *certificate)
{
	EXTENDED_KEY_USAGE *usages = X509_get_ext_d2i(certificate, NID_ext_key_usage, NULL, NULL);
	ASN1_OBJECT *wanted = OBJ_txt2obj(EK_CERTIFICATE_USAGE, 1);
	bool found = false;

	for (int i = 0; usages && wanted && i < sk_ASN1_OBJECT_num(usages); i++)
		found = found || OBJ_cmp(sk_ASN1_OBJECT_value(usages, i), wanted) == 0;
	EXTENDED_KEY_USAGE_free(usages);
	ASN1_OBJECT_free(wanted);
	return found;
}

static bool names_tpm(const X509_NAME *name)
{
	for (size_t i = 0; i < sizeof TPM_ATTRIBUTES / sizeof *TPM_ATTRIBUTES; i++) {
		ASN1_OBJECT *wanted = OBJ_txt2obj(TPM_ATTRIBUTES[i], 1);
		bool found = wanted && X509_NAME_get_index_by_OBJ(name, wanted, -1) >= 0;

		ASN1_OBJECT_free(wanted);
		if (!found)
			return false;
	}
	return true;
}

static bool has_tpm_name(X509 *certificate)
{
	GENERAL_NAMES *names = X509_get_ext_d2i(certificate, NID_subject_alt_name, NULL, NULL);
	bool found = false;

	for (int i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
		const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);

		found = found || (name->type == GEN_DIRNAME && names_tpm(name->d.directoryName));
	}
	GENERAL_NAMES_free(names);
	return found;
}

/* What makes it an EK's certificate: EK Credential Profile 2.5, section 3.2. */
static enum secpool_error check_form(X509 *certificate, const struct quote_key *ek)
{
	uint32_t usage = ek->rsa ? KU_KEY_ENCIPHERMENT : KU_KEY_AGREEMENT;

	if (X509_get_version(certificate) != X509_VERSION_3)
		return refuse("it is not of X.509 version 3");
	if (X509_check_ca(certificate) != 0)
		return refuse("it is a CA's");
	if (!has_usage(certificate))
		return refuse(
			"its extended key usage is not that of an EK (" EK_CERTIFICATE_USAGE ")");
	if (X509_get_ext_by_NID(certificate, NID_key_usage, -1) < 0 ||
		!(X509_get_key_usage(certificate) & usage))
		return refuse("its key usage is not that of an EK");
	if (!has_tpm_name(certificate))
		return refuse("it does not name the TPM's maker, model and version");
	return SECPOOL_OK;
}

static enum secpool_error bad_chain(const X509_STORE_CTX *context)
{
	int code = X509_STORE_CTX_get_error(context);
	bool own = X509_STORE_CTX_get_error_depth(context) == 0;

	switch (code) {
	case X509_V_ERR_CERT_HAS_EXPIRED:
		return refuse(own ? "it has expired" : "the certificate of its CA has expired");
	case X509_V_ERR_CERT_NOT_YET_VALID:
		return refuse(
			own ? "it is not valid yet" : "the certificate of its CA is not valid yet");
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
	case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
	case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
	case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
	case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
		return refuse("no CA that the policy lists (devices.ek_ca) has issued it");
	case X509_V_ERR_CERT_SIGNATURE_FAILURE:
		return refuse("its signature is not by the CA that it names");
	case X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION:
		return refuse("it has a critical extension that is not known here");
	default:
		return refuse(X509_verify_cert_error_string(code));
	}
}

static enum secpool_error check_chain(
	const struct ekcert_cas *cas, X509 *certificate, int64_t now_s)
{
	X509_STORE_CTX *context = X509_STORE_CTX_new();
	enum secpool_error error = refuse("OpenSSL has no memory to check it");
	X509_VERIFY_PARAM *param;

	/* no certificates of the device's: what is between it and a root is in the operator's files */
	if (!context || X509_STORE_CTX_init(context, cas->store, certificate, NULL) != 1)
		goto out;
	param = X509_STORE_CTX_get0_param(context);
	X509_VERIFY_PARAM_set_time(param, (time_t)now_s);
	X509_VERIFY_PARAM_set_auth_level(param, SECURITY_LEVEL);
	error = X509_verify_cert(context) == 1 ? SECPOOL_OK : bad_chain(context);
out:
	X509_STORE_CTX_free(context);
	return error;
}

enum secpool_error ekcert_verify(const struct ekcert_cas *cas, const uint8_t *certificate,
	size_t bytes, const uint8_t *ek, size_t ek_bytes, int64_t now_s)
{
	struct quote_key key = {.pkey = NULL};
	enum secpool_error error;
	X509 *parsed = NULL;

	if (!cas)
		return refuse("the policy lists no CA (devices.ek_ca)");
	if (bytes == 0)
		return refuse("the TPM has none");
	if (bytes > EKCERT_BYTES_MOST)
		return refuse("it is too long");
	error = quote_key_init(QUOTE_KEY_EK, ek, ek_bytes, &key);
	if (error)
		return error;
	parsed = parse(certificate, bytes);
	error = parsed ? check_key(parsed, &key) : refuse("it is not an X.509 certificate in DER");
	/* the chain before the form: who is not known has nothing to say about what it is */
	if (!error)
		error = check_chain(cas, parsed, now_s);
	if (!error)
		error = check_form(parsed, &key);
	X509_free(parsed);
	quote_key_done(&key);
	ERR_clear_error();
	return error;
}
