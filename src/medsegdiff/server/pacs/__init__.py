"""Between this program and a PACS: series come by C-STORE or DICOMweb, results go back the same way."""
