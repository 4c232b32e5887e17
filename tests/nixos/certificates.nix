# A CA and certificates from it, as an admin would make them; by the file's name the names and addresses it is for, such as
# "DNS:example.org".
pkgs: subjects:

let
  inherit (pkgs) lib;
in
pkgs.runCommand "plexus-test-certificates" { nativeBuildInputs = [ pkgs.openssl ]; } (
  ''
    mkdir $out
    cd $out
    openssl req -new -x509 -days 3650 -nodes -newkey rsa:2048 -subj "/CN=Test CA" -keyout ca.key -out ca.pem
  ''
  + lib.concatStrings (
    lib.mapAttrsToList (name: subject: ''
      openssl req -new -nodes -newkey rsa:2048 -subj "/CN=${name}" -keyout ${name}.key -out ${name}.csr
      printf 'basicConstraints=CA:FALSE\nsubjectAltName=${subject}\n' > ${name}.ext
      openssl x509 -req -days 3650 -in ${name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -extfile ${name}.ext -out ${name}.pem
    '') subjects
  )
)
