"""What a hospital's archive is given and asked for; the programs stand on it, and it stands on xray."""
